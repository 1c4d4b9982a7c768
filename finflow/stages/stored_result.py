"""Reuses the stored result of an earlier evaluation of the same runs, data and statistics."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finflow.artifacts.runs import HEAD, RUN, SUMMARY, run_files
from finflow.errors import StorageError
from finflow.evaluation.stitching import Part
from finflow.evaluation.stored_evaluation import STORED, Stored, read_stored, store
from finflow.evaluation.test_window_log import count_openings
from finflow.io.files import read_json
from finflow.io.weights import sources_hash
from finflow.plugins import code_of
from finflow.schema import Config
from finflow.schema.fields import digest
from finflow.stages.evaluated_runs import EvaluatedRuns
from finflow.stages.explaining import provenance_of
from finflow.stages.loaded_run import Trained
from finflow.stages.run_groups import Group, Kind, groups_of
from finflow.tracking.sink import warn

JUDGEMENT = "judgement"
"""Entry of `run.json` that says what was evaluated, and how."""
COMPUTING = ("agents", "allocators", "data", "envs", "evaluation", "nn")
"""Packages whose code decides the result of an evaluation."""


def judgement_of(config: Config, runs: Sequence[Trained], kind: Kind) -> dict[str, Any]:
    """All that decides an evaluation's result, for `run.json`: the runs in their order, data, statistics, code."""
    return {
        "runs": [digest(provenance_of(Group((run,))) | {"run": ""}) for run in runs],
        "kind": kind,
        "code": sources_hash(COMPUTING),
        "baselines": config.baselines,
        "plugins": code_of(sorted({name for run in runs for name in run.config.plugins})),
        **config.evaluation.model_dump(include={"bootstrap_samples", "block_days"}),
    }


def stored_result(config: Config, runs: Sequence[Trained], kind: Kind) -> tuple[EvaluatedRuns, Path] | None:
    """The newest stored result of the same judgement, and its folder; None where there is none that can be read.

    What is shown was seen at an opening that the log holds; what sectors and cards add is computed from that result.
    """
    wanted = judgement_of(config, runs, kind)
    found: list[tuple[str, Path, str]] = []
    for summary in run_files(Path(config.output_root), "evaluate", SUMMARY):
        try:
            record = read_json(summary.parent / RUN)
        except StorageError:
            continue
        if record.get(JUDGEMENT) == wanted and (summary.parent / STORED).exists():
            found.append((str(record["finished"]), summary.parent, str(record[HEAD])))
    for _, folder, head in sorted(found, reverse=True):
        try:
            return _rebuilt(config, runs, kind, read_stored(folder / STORED), head), folder
        except StorageError as error:  # damaged, or of an earlier version
            warn(f"{error}: the test window is opened anew")
    return None


def keep(folder: Path, evaluated: EvaluatedRuns) -> None:
    """Store a result in the folder of its evaluation."""
    folds = tuple(part.evaluation for part in evaluated.parts) if len(evaluated.parts) > 1 else ()
    store(folder / STORED, Stored(evaluated.evaluation, folds, evaluated.study))


def _rebuilt(config: Config, runs: Sequence[Trained], kind: Kind, stored: Stored, head: str) -> EvaluatedRuns:
    opened = max(
        count_openings(Path(config.output_root), str(run.record["data_fingerprint"]), run.prepared.fold.name)
        for run in runs
    )
    groups = groups_of(runs, kind)[: len(stored.folds) or 1]
    evaluation = replace(stored.evaluation, window_opened=opened)
    parts = [
        Part(own, group.prepared, group.policy.act)
        for own, group in zip(stored.folds or (evaluation,), groups, strict=True)
    ]
    return EvaluatedRuns(evaluation, parts, stored.study, head)
