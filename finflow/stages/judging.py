"""Opens test windows: of one run, of averaged seeds, of joined folds, or of runs to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finflow.agents.policy_ablations import BLOCK, variants
from finflow.data.benchmark import EQUAL_WEIGHT
from finflow.data.market import Market
from finflow.evaluation.choosing import selection_of
from finflow.evaluation.evaluate import evaluate_policy
from finflow.evaluation.metrics import track_metrics
from finflow.evaluation.result import Evaluation, Member, Study, Track
from finflow.evaluation.seeds import summarise_seeds
from finflow.evaluation.stitching import Part, join, stitch
from finflow.evaluation.task import POLICY, Bootstrap, Candidate
from finflow.evaluation.test_window_log import record_opening
from finflow.evaluation.verdict import judge
from finflow.schema import Config
from finflow.schema.env import Env
from finflow.stages.loaded_run import Trained
from finflow.stages.run_groups import Group, Kind, groups_of, labels

SURVIVORS = "the 20 names are survivors, chosen with hindsight: every strategy here is flattered by that, 1/N too"


@dataclass(frozen=True)
class Judged:
    """The page's evaluation, its parts by fold, the study of several runs, and the head of the log of openings."""

    evaluation: Evaluation
    parts: list[Part]
    study: Study | None
    head: str


def judge_runs(config: Config, runs: Sequence[Trained], kind: Kind, when: str) -> Judged:
    """Judge runs that belong together as `kind` says; every run's opening of its window is recorded first."""
    openings = [_open(config, run, when) for run in runs]
    opened = {run.prepared.fold.name: count for run, (count, _) in zip(runs, openings, strict=True)}
    head = openings[-1][1]
    first, names, bootstrap = runs[0], labels(runs, kind), _bootstrap(config, runs[0])
    if kind == "single":
        part = _part(config, Group((first,)), opened)
        return Judged(part.evaluation, [part], None, head)
    if kind in ("folds", "ensemble"):
        groups = groups_of(runs, kind)
        parts = [_part(config, group, opened) for group in groups]
        members = tuple(
            Member(name, part.evaluation.metrics[POLICY], part.evaluation.verdict)
            for name, part in zip(names, parts, strict=True)
        )
        whole = stitch(parts, bootstrap)
        if kind == "folds":
            return Judged(whole, parts, Study("folds", members, None, False), head)
        # Each seed's own walk-forward, over the same days as the ensemble's.
        own = zip(*(group.runs for group in groups), strict=True)
        walked = {f"seed {of_seed[0].config.seed}": join([_track(run) for run in of_seed]) for of_seed in own}
        seeds = _members(walked, whole, bootstrap)
        return Judged(whole, parts, Study("folds", members, *_middle(bootstrap, seeds), seeds=seeds), head)
    tracks = {name: _track(run) for name, run in zip(names, runs, strict=True)}
    if kind == "seeds":
        part = _part(config, Group(tuple(runs)), opened)
        members = _members(tracks, part.evaluation, bootstrap)
        return Judged(part.evaluation, [part], Study("seeds", members, *_middle(bootstrap, members)), head)
    others = dict(list(tracks.items())[1:])
    part = _part(config, Group((first,)), opened, others)
    members = _members(tracks, part.evaluation, bootstrap)
    chosen = selection_of(tracks, part.evaluation.baselines[part.evaluation.verdict.opponent])
    return Judged(part.evaluation, [part], Study("comparison", members, None, False, chosen), head)


def _middle(bootstrap: Bootstrap, seeds: Sequence[Member]) -> tuple[tuple[float, float, float] | None, bool]:
    """Interquartile mean of the seeds' Sharpe ratios with its interval, None if undefined; and whether they are few."""
    ratios = np.array([np.nan if seed.metrics.sharpe is None else seed.metrics.sharpe for seed in seeds])
    found = summarise_seeds(ratios, samples=bootstrap.samples, rng=bootstrap.rng("seeds"))
    middle = (found.middle, found.low, found.high)
    return None if np.isnan(middle).any() else middle, found.underpowered


def _open(config: Config, run: Trained, when: str) -> tuple[int, str]:
    prepared = run.prepared
    name = f"{run.folder.parent.name}/{run.folder.name}"
    # Counted by the data of training: the days of a window stay the same where a file has grown since.
    fingerprint = str(run.record["data_fingerprint"])
    opening = record_opening(Path(config.output_root), fingerprint, prepared.fold.name, name, when)
    return opening.count, opening.head


def _part(config: Config, group: Group, opened: dict[str, int], others: dict[str, Track] | None = None) -> Part:
    run, policy = group.first, group.policy
    prepared, own = run.prepared, run.config
    whole = run.policy.at_whole_tilt()  # parts of a policy that abstains have no effect
    decisions = prepared.fold.validation.decisions
    block = prepared.market.calendar.rows(BLOCK)
    bootstrap = _bootstrap(config, run)
    taken = {POLICY: whole.act, **variants(whole, prepared.spec.experts, decisions, bootstrap.rng("reality"), block)}
    candidate = Candidate(
        policy,
        prepared.scaling,
        prepared.spec.experts,
        variants=taken if len(group.runs) == 1 else {},  # an average has no one gate to take a part from
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
    )
    return Part(evaluation, prepared, policy.act)


def caveats(market: Market, env: Env) -> tuple[str, ...]:
    """What must be said of the data beside every figure."""
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
    return tuple(Member(name, track_metrics(t), judge(t, rivals, bootstrap)) for name, t in tracks.items())
