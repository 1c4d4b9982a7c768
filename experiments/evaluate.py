"""The test window: baselines, costs, statistics, verdict and report."""

from pathlib import Path

import entry
import judged
import tables
from finflow.schema import Config

judged.register()
EXAMPLES = {
    "run=DIR": "a run folder (default: the newest finished one)",
    "audit=true": "look for leaks in data, features and fold; the test window stays shut",
    "evaluation.bootstrap_samples=10000": "a finer interval",
    "output_root=DIR": "where runs are looked for and written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Evaluate, print the table and the verdict, and write the report to `folder`."""
    if config.audit:
        return run_audit(config, folder)
    from finflow.evaluation.diagnostics import diagnostics_says
    from finflow.pipeline import evaluate

    result = evaluate(config, folder)
    found = result.evaluation
    for one in result.runs:
        print(f"Run judged: {entry.shown(one)}")
    tables.show_growth(result.new_days)
    tables.show_metrics(found.metrics, found.policy.year)
    tables.show_parts(found)
    if found.diagnostics:
        print(f"Experts and gate: {diagnostics_says(found.diagnostics)}")
    print(entry.timing(result.run_dir))
    for name, line in result.confidence.items():
        print(f"Confidence{f', {name}' if name else ''}: {line}")
    print(f"Test window opened {found.window_opened} times")
    print(found.verdict.line())
    print(f"Report: {entry.shown(result.report)}")
    return result


def run_audit(config: Config, folder: Path) -> entry.Result:
    """Audit, print a row a check and the verdict; a leak ends in an `AuditError`."""
    from finflow.stages.audit import audit

    result = audit(config, folder)
    tables.show_checks(result.checks)
    result.require()
    print(f"Record: {entry.shown(result.record)}")
    print(result.line())
    return result


if __name__ == "__main__":
    about = "Open the test window: net of costs, against simple portfolios, with statistics and a report."
    entry.main("evaluate", about, EXAMPLES, run)
