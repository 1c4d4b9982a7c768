"""The test window: the only stage that looks at it, and says how often that was done."""

import json
from pathlib import Path
from typing import Any

from finflow.artifacts.commands import command_for
from finflow.artifacts.parents import FACTS
from finflow.artifacts.provenance import Stopwatch, run_record, write_config, write_run, write_summary
from finflow.config import run_folder, to_yaml
from finflow.errors import DataError
from finflow.evaluation.evaluate import evaluate_policy
from finflow.evaluation.files import figures, write_evaluation
from finflow.evaluation.openings import record_opening
from finflow.report.page import RunFacts, write_report
from finflow.schema import Config
from finflow.stages.results import EvaluateResult
from finflow.stages.run import METRICS
from finflow.stages.trained import Trained, load_trained
from finflow.tracking.console import warn

SURVIVORS = "the 20 names are survivors, chosen with hindsight: every strategy here is flattered by that, 1/N too"


def evaluate(config: Config, run_dir: Path | None = None) -> EvaluateResult:
    """Judge a finished run on its fold's test window and write tables and report.

    Raises
    ------
    ConfigError
        If there is no such finished run.
    DataError
        If the prices are no longer those that the run was trained on.
    StorageError, AuditError
        If a file is damaged, cannot be written, or the log of openings was tampered with.
    """
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        trained = load_trained(config)
    _same_data(trained)
    prepared, own = trained.prepared, trained.config
    folder = run_dir or Path(run_folder(config.output_root, config.stage, own.name, own.seed))
    folder.mkdir(parents=True, exist_ok=True)
    opening = record_opening(
        Path(config.output_root),
        prepared.market.fingerprint,
        prepared.fold.name,
        f"{trained.folder.parent.name}/{trained.folder.name}",
        stopwatch.started,
    )
    warnings = (*prepared.market.warnings, *((SURVIVORS,) if own.env.source == "sp500" else ()))
    with stopwatch.phase("evaluate"):
        evaluation = evaluate_policy(
            prepared.market,
            prepared.fold,
            prepared.accounting,
            trained.policy,
            frequency=own.env.rebalance,
            samples=config.evaluation.bootstrap_samples,
            block_days=config.evaluation.block_days,
            seed=own.seed,
            expert_names=prepared.spec.experts,
            window_opened=opening.count,
            diagnostics={k: v for k, v in trained.summary.get("diagnostics", {}).items() if v is not None},
            warnings=warnings,
        )
    for line in evaluation.warnings:
        warn(line)
    write_config(folder, own)
    write_evaluation(folder, evaluation, prepared.market, prepared.fold.test)
    following = command_for("decide", own, f"run={trained.folder}")
    facts = {"run": str(trained.folder), "window_opened": opening.count, "test_ledger_head": opening.head}
    record = run_record(
        own, prepared.market.fingerprint, prepared.dates, own.seed, trained.record.get("parent"), stopwatch,
        finished=True, facts=facts,
    )  # fmt: skip
    report = folder / "report.html"
    write_report(report, evaluation, _run_facts(trained, record, following))
    write_run(folder, record)
    write_summary(folder, {"stage": "evaluate", **figures(evaluation)})
    return EvaluateResult(folder, report, evaluation, following)


def _same_data(trained: Trained) -> None:
    now, then = trained.prepared.market.fingerprint, trained.record.get("data_fingerprint")
    if now != then:
        raise DataError(
            f"run={trained.folder}: trained on other data (fingerprint {then}, now {now});"
            " restore the prices it was trained on, or train again"
        )


def _run_facts(trained: Trained, record: dict[str, Any], following: str) -> RunFacts:
    dates = trained.prepared.dates
    parent = trained.record.get("parent")
    pretraining = _history(Path(parent["weights"]).parent / METRICS) if isinstance(parent, dict) else []
    own = _history(trained.folder / METRICS)
    pretrained = trained.config.stage == "pretrain"
    kept = ("seed", "data_fingerprint", "parent", "threads", "device", "versions", "git", "window_opened")
    provenance = {name: record[name] for name in kept if record.get(name) is not None}
    if isinstance(provenance.get("parent"), dict):
        provenance["parent"] = {k: v for k, v in provenance["parent"].items() if k != FACTS}
    return RunFacts(
        title=f"{trained.config.stage} / {trained.config.name}",
        folder=trained.folder.name,
        config=to_yaml(trained.config),
        provenance=provenance,
        fold=trained.prepared.fold.name,
        fold_dates={
            "train": (dates["train"][0], dates["train"][1]),
            "validation": (dates["validation"][0], dates["validation"][1]),
            "test": (dates["test"][0], dates["test"][1]),
        },
        pretrain=own if pretrained else pretraining,
        finetune=[] if pretrained else own,
        next_command=following,
    )


def _history(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`; empty where it is gone."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
