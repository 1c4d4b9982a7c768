"""Evaluation on the test window; no other stage reads test returns, and every opening is counted."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finflow.allocators.baselines import require_online_selection
from finflow.artifacts.provenance import FACTS, Stopwatch, finish_run, made_folder, weights_of
from finflow.artifacts.runs import HEAD, JUDGED, OPENING, check_arguments, command_for, noted_heads
from finflow.config.compose import to_yaml
from finflow.data.csv_table import read_as
from finflow.data.series import read_sectors
from finflow.errors import ConfigError
from finflow.evaluation.files import figures, plain, write_evaluation
from finflow.evaluation.test_window_log import verify_openings
from finflow.io.files import atomic_json, read_lines
from finflow.report.page import RunFacts, write_report
from finflow.schema import Config
from finflow.stages.evaluated_runs import JUDGEMENT, EvaluatedRuns, evaluate_runs, judgement_of, keep, stored_result
from finflow.stages.explaining import explain_windows
from finflow.stages.loaded_run import Trained, named_after, record_of, require_same_past
from finflow.stages.results import EvaluateResult
from finflow.stages.run_groups import confidence_lines, groups_of, labels, load_runs, named
from finflow.tracking.sink import METRICS, warn


def evaluate(config: Config, run_dir: Path | None = None) -> EvaluateResult:
    """Judge one finished run, or several, on their folds' test windows, and write tables and report.

    Several runs that differ by their seed alone are averaged to one strategy, by their fold alone stitched to one
    walk-forward track, by both averaged within each fold and then stitched, else compared setting by setting, the
    seeds of each averaged. Every strategy counts as one opening of its window. Where the same
    runs were judged before on the same data and with the same statistics, the page is made from what was stored then:
    the test window is not opened again.

    Raises
    ------
    ConfigError
        If there is no such finished run, several do not belong together, or `audit` is set.
    DataError
        If the data up to the last day that a run was trained on are no longer the same; they may have grown.
    StorageError, AuditError
        If a file is damaged, cannot be written, or the log of openings was tampered with or cut.
    """
    run_dir = check_arguments(config, "evaluate", run_dir)
    if config.audit:
        raise ConfigError("audit=true: keeps the test window shut; call finflow.audit, or evaluate without it")
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        runs, kind = load_runs(config)
        for run in runs:
            require_same_past(run)
        sectors = None
        if config.sectors is not None:  # read before any window is opened
            with read_as("sectors"):
                sectors = read_sectors(Path(config.sectors), runs[0].prepared.market.assets[:-1])
        require_online_selection(config.baselines)
        verify_openings(Path(config.output_root), noted_heads(config.output_root, OPENING, HEAD))
    first = runs[0]
    own = named_after(config, first)
    folder = made_folder(own, run_dir)
    with stopwatch.phase("evaluate"):
        before = stored_result(config, runs, kind)
        evaluated = evaluate_runs(config, runs, kind, stopwatch.started) if before is None else before[0]
    evaluation = evaluated.evaluation
    with stopwatch.phase("explain"):
        tracks = [part.evaluation.policy for part in evaluated.parts]
        overview = explain_windows(runs, kind, tracks, labels(runs, kind), sectors)
    for line in evaluation.warnings:
        warn(line)
    with stopwatch.phase("report"):
        keep(folder, evaluated)
        _write_tables(folder, evaluated)
        atomic_json(folder / "explanations.json", overview.to_dict())
    traded = runs if kind != "comparison" else groups_of(runs, kind)[0].runs
    following = command_for("decide", first.config, {"run": named([run.folder for run in traded])})
    source = None if before is None else before[1]
    facts = {
        "run": [str(run.folder) for run in runs],
        "kind": kind,
        JUDGEMENT: judgement_of(config, runs, kind),
        "settings": {
            **{name: getattr(config, name) for name in ("run", "sectors", "baselines")},
            **config.evaluation.model_dump(include={"bootstrap_samples", "block_days"}),
        },
        "new_days": first.past.new_days,
        JUDGED: [run.summary.get("weights_sha256") for run in traded],
        "rendered_from": None if source is None else str(source),
        "window_opened": evaluation.window_opened,
        HEAD: evaluated.head,
    }
    record = record_of(own, first, stopwatch, facts)
    said = confidence_lines(runs, kind)
    report = folder / "report.html"
    with stopwatch.phase("report"):
        write_report(report, evaluation, _run_facts(first, record, following, said), evaluated.study, overview)
    study = None if evaluated.study is None else plain(asdict(evaluated.study))
    summary = {"kind": kind, **figures(evaluation), "study": study, "confidence": said}
    finish_run(folder, own, record, stopwatch, summary)
    folders = tuple(run.folder for run in runs)
    return EvaluateResult(
        folder, report, evaluation, evaluated.study, folders, said, first.past.new_days, following, rendered_from=source
    )


def _write_tables(folder: Path, evaluated: EvaluatedRuns) -> None:
    """All tables of one window; a walk-forward has each fold's own in a folder of its name."""
    several = len(evaluated.parts) > 1
    write_evaluation(folder, evaluated.evaluation, None if several else evaluated.parts[0].task)
    for part in evaluated.parts if several else ():
        place = folder / f"fold-{part.task.fold.name}"
        place.mkdir(exist_ok=True)
        write_evaluation(place, part.evaluation, part.task)


def _run_facts(trained: Trained, record: dict[str, Any], following: str, said: Mapping[str, str]) -> RunFacts:
    dates = trained.prepared.dates
    parent = trained.record.get("parent")
    root = trained.config.output_root
    pretraining = read_lines(weights_of(parent, root).parent / METRICS) if isinstance(parent, dict) else []
    own = read_lines(trained.folder / METRICS)
    pretrained = trained.config.stage == "pretrain"
    kept = ("seed", "data_fingerprint", "parent", "threads", "device", "versions", "git", "window_opened")
    provenance = {name: record[name] for name in kept if record.get(name) is not None}
    if isinstance(provenance.get("parent"), dict):
        provenance["parent"] = {k: v for k, v in provenance["parent"].items() if k not in (FACTS, "path")}
    return RunFacts(
        title=f"{trained.config.stage} / {trained.config.name}",
        folder=trained.folder.name,
        config=to_yaml(trained.config),
        provenance=provenance,
        fold=trained.prepared.fold.name,
        fold_dates={part: (dates[part][0], dates[part][1]) for part in ("train", "validation", "test")},
        pretrain=own if pretrained else pretraining,
        finetune=[] if pretrained else own,
        confidence=said,
        next_command=following,
        calendar=trained.prepared.market.calendar,
    )
