"""Target weights and trades for the latest date in the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import entry
import judged
import tables
from finflow.schema import Config

if TYPE_CHECKING:
    from finflow.stages.results import Trade

judged.register()
EXAMPLES = {
    "run=DIR": "a fine-tuning run (default: the newest finished one)",
    "holdings=FILE": "a CSV ticker,shares or ticker,weight of what is held, with a row CASH",
    "capital=100000": "money to invest, or what holdings in weights are worth",
    "min_trade=0.005 lot=100": "smallest trade that is ordered, a fraction of net asset value; shares traded together",
    "env.end=2024-12-30": "last day of the data to use, where the newest row is not complete",
    "output_root=DIR": "where runs are looked for and written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Decide, and write the trades to `folder`."""
    from finflow.pipeline import decide

    result = decide(config, folder)
    print(f"Run followed: {entry.shown(result.run)}")
    if result.confidence:
        print(f"Confidence: {result.confidence}")
    tables.show_growth(result.new_days)
    if not result.decides:
        print(f"{result.date} is no decision day of env.rebalance: what is held stays as it is")
    if not result.owned:
        print("Neither holdings nor capital: a model portfolio is followed, bought at the start of the test window")
    print(result.verdict or f"Verdict: none yet, run {result.next_command}")
    show(f"Decision at the close of {result.date}, as fractions of net asset value", result.trades)
    tables.show_ticket(result.ticket)
    print(f"Orders: {entry.shown(result.orders)}")
    print(f"Table: {entry.shown(result.table)}")
    return result


def show(title: str, trades: "Sequence[Trade]") -> None:
    """Print a row an asset; a positive trade buys."""
    from rich.console import Console
    from rich.table import Table

    table = Table("asset", "held", "target", "trade", "", title=title)
    for row in trades:
        table.add_row(row.asset, f"{row.held:.4f}", f"{row.target:.4f}", f"{row.trade:+z.4f}", row.note)
    Console(width=100).print(table)


if __name__ == "__main__":
    entry.main("decide", "Print the portfolio to hold after the last date in the data, and the trades.", EXAMPLES, run)
