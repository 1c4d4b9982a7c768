"""Opens test windows: of one run, of averaged seeds, of joined folds, or of settings to compare.

The stored result of an earlier evaluation of the same runs, data and statistics is used again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finflow.agents.learner import BLOCK, ablations
from finflow.artifacts.runs import HEAD, RUN, SUMMARY, run_files
from finflow.data.market import Market
from finflow.data.series import EQUAL_WEIGHT
from finflow.errors import StorageError
from finflow.evaluation.backtest import POLICY, Bootstrap, Candidate
from finflow.evaluation.evaluate import evaluate_policy
from finflow.evaluation.files import STORED, Stored, read_stored, store
from finflow.evaluation.metrics import track_metrics
from finflow.evaluation.result import Evaluation, Track
from finflow.evaluation.selection_bias import selection_of
from finflow.evaluation.stitching import Part, join, stitch
from finflow.evaluation.study import Member, Setting, Study, against_reference, over_seeds, same_as, seed_by_seed
from finflow.evaluation.test_window_log import Opening, count_openings, record_opening
from finflow.evaluation.verdict import verdict_of
from finflow.io.files import read_json
from finflow.io.weights import sources_hash
from finflow.plugins import code_of
from finflow.schema import Config
from finflow.schema.fields import digest
from finflow.schema.sections import Env
from finflow.stages.explaining import provenance_of
from finflow.stages.loaded_run import Trained
from finflow.stages.run_groups import Group, Kind, groups_of, labels, settings_of
from finflow.tracking.sink import warn

SURVIVORS = "the 20 names are survivors, chosen with hindsight: every strategy here is flattered by that, 1/N too"


@dataclass(frozen=True)
class EvaluatedRuns:
    """The page's evaluation, its parts by fold, the study of several runs, and the head of the log of openings."""

    evaluation: Evaluation
    parts: list[Part]
    study: Study | None
    head: str


def evaluate_runs(config: Config, runs: Sequence[Trained], kind: Kind, when: str) -> EvaluatedRuns:
    """Judge runs that belong together as `kind` says; every strategy's opening of its window is recorded first."""
    groups = groups_of(runs, kind)
    openings = [_open(config, group, when) for group in groups]
    opened = {group.prepared.fold.name: one.count for group, one in zip(groups, openings, strict=True)}
    head = openings[-1].head
    names, bootstrap = labels(runs, kind), _bootstrap(config, runs[0])
    if kind == "single":
        part = _part(config, groups[0], opened)
        return EvaluatedRuns(part.evaluation, [part], None, head)
    if kind in ("folds", "ensemble"):
        parts = [_part(config, group, opened) for group in groups]
        members = tuple(
            Member(name, part.evaluation.metrics[POLICY], part.evaluation.verdict)
            for name, part in zip(names, parts, strict=True)
        )
        whole = stitch(parts, bootstrap)
        if kind == "folds":
            return EvaluatedRuns(whole, parts, Study("folds", members, None, False), head)
        # Each seed's own walk-forward, over the same days as the ensemble's.
        own = zip(*(group.runs for group in groups), strict=True)
        walked = {of_seed[0].config.seed: join([_track(run) for run in of_seed]) for of_seed in own}
        seeds = _members({f"seed {seed}": track for seed, track in walked.items()}, whole, bootstrap)
        return EvaluatedRuns(whole, parts, Study("folds", members, *over_seeds(walked, bootstrap), seeds=seeds), head)
    if kind == "seeds":
        part = _part(config, groups[0], opened)
        seeds = {run.config.seed: _track(run) for run in runs}
        members = _members(dict(zip(names, seeds.values(), strict=True)), part.evaluation, bootstrap)
        return EvaluatedRuns(part.evaluation, [part], Study("seeds", members, *over_seeds(seeds, bootstrap)), head)
    return _compared(config, settings_of(runs), opened, head)


def _compared(config: Config, settings: Mapping[str, Group], opened: dict[str, int], head: str) -> EvaluatedRuns:
    """The averaged strategy of each setting beside that of the first; settings with the same returns count as one."""
    reference, *_ = settings.values()
    bootstrap = _bootstrap(config, reference.first)
    runs = {name: {run.config.seed: _track(run) for run in group.runs} for name, group in settings.items()}
    tracks = {
        name: next(iter(runs[name].values()))
        if len(group.runs) == 1
        else group.prepared.track(group.prepared.fold.test, group.policy.act)
        for name, group in settings.items()
    }
    same = same_as(tracks)
    distinct = {name: track for name, track in tracks.items() if not same[name]}
    part = _part(config, reference, opened, dict(list(distinct.items())[1:]))
    first, few, members = next(iter(settings)), False, list[Member]()
    for member, group in zip(_members(tracks, part.evaluation, bootstrap), settings.values(), strict=True):
        own = runs[member.label]
        middle, underpowered = over_seeds(own, bootstrap)
        setting = Setting(
            seeds=tuple(own),
            middle=middle,
            against=against_reference(member.label, tracks, bootstrap),
            paired=None if group is reference else seed_by_seed(own, runs[first], bootstrap),
            same_as=same[member.label],
            handed_over=sum(run.summary.get("selected_episode") == 0 for run in group.runs),
            abstaining=sum(run.confidence is not None and run.confidence.kappa == 0 for run in group.runs),
        )
        few = few or underpowered
        members.append(replace(member, setting=setting))
    chosen = None
    if len(distinct) > 1:
        chosen = selection_of(distinct, part.evaluation.baselines[part.evaluation.verdict.opponent])
    return EvaluatedRuns(part.evaluation, [part], Study("comparison", tuple(members), None, few, chosen), head)


def _open(config: Config, group: Group, when: str) -> Opening:
    """Record one opening for a strategy, whatever the number of seeds that it averages."""
    name = ", ".join(f"{run.folder.parent.name}/{run.folder.name}" for run in group.runs)
    # Counted by the data of training: the days of a window stay the same where a file has grown since.
    fingerprint = str(group.first.record["data_fingerprint"])
    return record_opening(Path(config.output_root), fingerprint, group.prepared.fold.name, name, when)


def _part(config: Config, group: Group, opened: dict[str, int], others: dict[str, Track] | None = None) -> Part:
    run, policy = group.first, group.policy
    prepared, own = run.prepared, run.config
    whole = run.policy.at_whole_tilt()  # parts of a policy that abstains have no effect
    decisions = prepared.fold.validation.decisions
    block = prepared.market.calendar.rows(BLOCK)
    bootstrap = _bootstrap(config, run)
    parts = ablations(whole, prepared.spec.experts, decisions, bootstrap.rng("reality"), block)
    candidate = Candidate(
        policy,
        prepared.scaling,
        prepared.spec.experts,
        variants=parts if len(group.runs) == 1 else None,  # an average has no one gate to take a part from
        diagnostics={k: v for k, v in run.summary.get("diagnostics", {}).items() if v is not None},
    )
    evaluation = evaluate_policy(
        prepared,
        candidate,
        bootstrap,
        window_opened=opened[prepared.fold.name],
        warnings=caveats(prepared.market, own.env),
        others=others,
        own_benchmark=own.env.benchmark != EQUAL_WEIGHT,
        online_selection=config.baselines,
    )
    return Part(evaluation, prepared, policy.act)


def caveats(market: Market, env: Env) -> tuple[str, ...]:
    """Warnings about the data that stand beside every figure."""
    return (*market.warnings, *((SURVIVORS,) if env.source == "sp500" else ()))


def _bootstrap(config: Config, run: Trained) -> Bootstrap:
    asked = config.evaluation
    return Bootstrap(asked.bootstrap_samples, run.prepared.market.calendar.rows(asked.block_days), run.config.seed)


def _track(run: Trained) -> Track:
    return run.prepared.track(run.prepared.fold.test, run.policy.act)


def _members(tracks: dict[str, Track], evaluation: Evaluation, bootstrap: Bootstrap) -> tuple[Member, ...]:
    """Each run on its own, against the 1/N that the page's verdict compares with."""
    opponent = evaluation.verdict.opponent
    rivals = {opponent: evaluation.baselines[opponent]}
    return tuple(Member(name, track_metrics(t), verdict_of(t, rivals, bootstrap)) for name, t in tracks.items())


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
