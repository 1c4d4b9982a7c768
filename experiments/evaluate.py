"""The test window: baselines, costs, statistics, verdict and report."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import entry
from finflow.schema import Config

if TYPE_CHECKING:
    from finflow.evaluation.result import Metrics

EXAMPLES = {
    "run=DIR": "a run folder (default: the newest finished one)",
    "evaluation.bootstrap_samples=10000": "a finer interval",
    "output_root=DIR": "where runs are looked for and written (default outputs)",
}
COLUMNS = ("annual_return", "volatility", "sharpe", "max_drawdown", "cvar95", "turnover", "effective_assets")


def run(config: Config, folder: Path) -> entry.Result:
    """Evaluate, print the table and the verdict, and write the report to `folder`."""
    from finflow.pipeline import evaluate

    result = evaluate(config, folder)
    judged = result.evaluation
    show(judged.metrics)
    if judged.diagnostics:
        print(f"Experts and gate: {entry.figures(judged.diagnostics)}")
    print(f"Test window opened {judged.window_opened} times")
    print(judged.verdict.line())
    print(f"Report: {entry.shown(result.report)}")
    return result


def show(metrics: "Mapping[str, Metrics]") -> None:
    """Print a row a strategy, the policy first; a blank is an undefined value."""
    from rich.console import Console
    from rich.table import Table

    table = Table("strategy", *(name.replace("_", " ") for name in COLUMNS), title="Test window, net of costs")
    for strategy, row in metrics.items():
        values = (getattr(row, name) for name in COLUMNS)
        table.add_row(strategy, *("" if value is None else f"{value:.3f}" for value in values))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    about = "Open the test window: net of costs, against simple portfolios, with statistics and a report."
    entry.main("evaluate", about, EXAMPLES, run)
