"""Why a run traded as it did: a decision card for each day asked for."""

from pathlib import Path

import entry
import judged
import tables
from finflow.schema import Config

judged.register()
EXAMPLES = {
    "run=DIR": "a run that evaluate.py has judged (default: the newest finished one)",
    "date=2020-03-16": "the decision at the close of this day",
    "date=[2020-03-01,2020-03-31]": "every decision of these days",
    "top=10": "the ten largest trades, of the test window or of `date`; neither: the largest",
    "output_root=DIR": "where runs are looked for and written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Explain, print a row a card, and write the cards to `folder`."""
    from finflow.pipeline import explain

    result = explain(config, folder)
    print(f"Run explained: {entry.shown(result.run)}")
    tables.show_cards(result.cards)
    for page in result.pages if result.index is None else [result.index]:
        print(f"Card: {entry.shown(page)}" if result.index is None else f"Cards: {entry.shown(page)}")
    return result


if __name__ == "__main__":
    entry.main("explain", "Decision cards: what was traded, who asked for it, why, and what came of it.", EXAMPLES, run)
