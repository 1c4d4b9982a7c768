"""The leak audit of a finished run, on its own data and configuration; it uses no test return."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from finflow.artifacts.provenance import Stopwatch, finish_run, made_folder
from finflow.artifacts.runs import check_arguments, command_for
from finflow.data.build import PLANTED, load_prices
from finflow.data.prices import faded_warnings
from finflow.errors import ConfigError
from finflow.evaluation.audit.findings import Check, Findings
from finflow.evaluation.audit.leakage import compare_artefacts, compare_foresight, perturb_file, perturb_signals
from finflow.evaluation.audit.lookahead import Rows, Subject, perturb_futures, spread_rows
from finflow.io.files import atomic_json
from finflow.schema import Config
from finflow.seeding import numpy_stream
from finflow.stages.loaded_run import Trained, load_trained, named_after, record_of, single_run, tell_other_data
from finflow.stages.results import AuditResult
from finflow.tracking.sink import warn

AUDIT = "audit.json"
DATES, DEEP_DATES, FILE_DATES = 50, 20, 5
"""Days whose future is changed; those at which priors and weights are computed too, and at which a CSV is rewritten."""


def audit(config: Config, run_dir: Path | None = None) -> AuditResult:
    """Change what comes after a day and look for anything up to that day that changes with it.

    At `DATES` days, spread over the data, later prices are scaled, shuffled, blanked and cut: prices, features,
    labels, status, benchmark, decision days, scaled features, priors and the policy's weights up to the day must
    stay as they are, to the bit. Then everything after the train window is noise: what the fold fits must stay.
    Only equality is tested: no test return is shown, and the test window does not count as opened.

    Raises
    ------
    ConfigError, DataError, StorageError
        One line each, see `finflow.errors`. A leak is in the result; `AuditResult.require` raises it.
    """
    run_dir = check_arguments(config, "evaluate", run_dir)
    if config.sectors is not None:
        raise ConfigError(f"sectors={config.sectors}: not read by an audit; leave it out")
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        trained = load_trained(config, single_run(config))
    own, prepared = trained.config, trained.prepared
    tell_other_data(trained)
    named = named_after(config, trained)
    folder = made_folder(named, run_dir)
    rng = numpy_stream(own.seed, "audit/rows")
    rows = spread_rows(len(prepared.market.dates), DATES, rng)
    with stopwatch.phase("audit"):
        checks = _checks(trained, rows)
    flags = faded_warnings(prepared.market, prepared.fold.train)
    for flag in flags:
        warn(flag)
    content = {
        "passed": not any(check.differences for check in checks),
        "run": str(trained.folder),
        "data_fingerprint": prepared.market.fingerprint,
        "fold": prepared.fold.name,
        "dates": [str(day) for day in prepared.market.dates[rows]],
        "flags": flags,
        "checks": [asdict(check) for check in checks],
    }
    atomic_json(folder / AUDIT, content)
    facts = {"run": str(trained.folder), "settings": {"run": config.run}, "audit": AUDIT}
    record = record_of(named, trained, stopwatch, facts)
    finish_run(folder, named, record, stopwatch, None)  # without a summary no later stage takes it for an evaluation
    following = command_for("evaluate", own, {"run": trained.folder})
    return AuditResult(folder, folder / AUDIT, checks, len(rows), following)


def _checks(trained: Trained, rows: Rows) -> tuple[Check, ...]:
    own, prepared, findings = trained.config, trained.prepared, Findings()
    prices = load_prices(own.env, prepared.cache)
    subject = Subject(
        prices=prices,
        env=own.env.model_copy(update={"periods_per_year": prepared.market.calendar.year}),  # a cut shortens the count
        actor=trained.networks.actor,
        scaling=prepared.scaling,
        accounting=prepared.accounting,
        reward=prepared.world.reward,
        device=prepared.world.device,
    )
    rng = numpy_stream(own.seed, "audit/changes")
    some = rows[np.linspace(0, len(rows) - 1, min(FILE_DATES, len(rows))).astype(np.int64)]
    if own.env.snapshot is None:  # which is read as it is: the files it was made of may be gone
        if own.env.source == "csv":
            perturb_file(findings, prices, own.env, some, rng)
        if own.env.signals is not None:
            perturb_signals(findings, prices, own.env, some, rng)
    if own.env.signals is not None:
        names = [name for name in prices.signals if name != PLANTED]
        compare_foresight(findings, prices, prepared.market, prepared.fold, names)
    perturb_futures(findings, subject, rows, DEEP_DATES, rng)
    compare_artefacts(findings, subject, own, prepared.fold, own.seed)
    return findings.checks()
