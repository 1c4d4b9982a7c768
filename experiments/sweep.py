"""The table of a sweep: leaderboard, the best setting, how much of it is luck, and what each parameter does."""

from pathlib import Path

import entry
import swept
from finflow.schema import Config

swept.register()
EXAMPLES = {
    "dir=DIR": "the folder of a sweep (default: the newest), also while its jobs run",
    "sweep.objective=active_ir": "sort by the information ratio against 1/N (default: as the jobs selected)",
    "output_root=DIR": "where sweeps are looked for (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Collect, print the leaderboard, and write the table and the page to `folder`."""
    from finflow.stages.sweep import collect_sweep

    result = collect_sweep(config, folder)
    swept.show(result.leaderboard)
    print(f"Table: {entry.shown(result.table)}\nReport: {entry.shown(result.page)}")
    if result.best is not None:
        print(f"Best: {entry.shown(result.best)}\nAgain: {result.rerun}")
    return result


if __name__ == "__main__":
    entry.main("sweep", "Collect a sweep: leaderboard, deflated Sharpe, effects, best.yaml, sweep.html.", EXAMPLES, run)
