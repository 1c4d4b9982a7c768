"""Opening test windows: for one run, for seeds as one strategy, for folds end to end, or for runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finflow.agents.policy_ablations import BLOCK, variants
from finflow.data.benchmark import EQUAL_WEIGHT
from finflow.data.market import Market
from finflow.evaluation.backtest import backtest
from finflow.evaluation.choosing import selection_of
from finflow.evaluation.evaluate import Policy, evaluate_policy
from finflow.evaluation.metrics import track_metrics
from finflow.evaluation.result import Evaluation, Member, Study, Track
from finflow.evaluation.robustness import POLICY
from finflow.evaluation.seeds import summarise_seeds
from finflow.evaluation.stitching import Part, join, stitch
from finflow.evaluation.test_window_log import record_opening
from finflow.evaluation.verdict import judge
from finflow.schema import Config
from finflow.seeding import numpy_stream
from finflow.stages.loaded_run import Trained
from finflow.stages.run_groups import AveragedPolicy, Kind, by_fold, labels

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
    first, names = runs[0], labels(runs, kind)
    samples = config.evaluation.bootstrap_samples
    block = first.prepared.market.calendar.rows(config.evaluation.block_days)
    if kind == "single":
        part = _part(config, first, first.policy, opened)
        return Judged(part.evaluation, [part], None, head)
    if kind in ("folds", "ensemble"):
        groups = by_fold(runs)
        parts = [_part(config, group[0], _together(group), opened) for group in groups.values()]
        members = tuple(
            Member(name, part.evaluation.metrics[POLICY], part.evaluation.verdict)
            for name, part in zip(names, parts, strict=True)
        )
        whole = stitch(parts, samples=samples, block_days=block, seed=first.config.seed)
        if kind == "folds":
            return Judged(whole, parts, Study("folds", members, None, False), head)
        # Each seed's own walk-forward, over the same days as the ensemble's.
        own = zip(*groups.values(), strict=True)
        walked = {f"seed {of_seed[0].config.seed}": join([_track(run) for run in of_seed]) for of_seed in own}
        seeds = _members(config, walked, whole, first.prepared.market, first.config.seed)
        return Judged(whole, parts, Study("folds", members, *_middle(config, first, seeds), seeds=seeds), head)
    tracks = {name: _track(run) for name, run in zip(names, runs, strict=True)}
    if kind == "seeds":
        part = _part(config, first, _together(runs), opened)
        members = _members(config, tracks, part.evaluation, part.market, first.config.seed)
        return Judged(part.evaluation, [part], Study("seeds", members, *_middle(config, first, members)), head)
    others = dict(list(tracks.items())[1:])
    part = _part(config, first, first.policy, opened, others)
    members = _members(config, tracks, part.evaluation, part.market, first.config.seed)
    chosen = selection_of(tracks, part.evaluation.baselines[part.evaluation.verdict.opponent])
    return Judged(part.evaluation, [part], Study("comparison", members, None, False, chosen), head)


def _together(runs: Sequence[Trained]) -> Policy:
    """The policy of one run, or of several seeds averaged."""
    return runs[0].policy if len(runs) == 1 else AveragedPolicy([run.policy for run in runs])


def _middle(config: Config, first: Trained, seeds: Sequence[Member]) -> tuple[tuple[float, float, float] | None, bool]:
    """Interquartile mean of the seeds' Sharpe ratios with its interval, None if undefined; and whether they are few."""
    ratios = np.array([np.nan if seed.metrics.sharpe is None else seed.metrics.sharpe for seed in seeds])
    samples = config.evaluation.bootstrap_samples
    found = summarise_seeds(ratios, samples=samples, rng=numpy_stream(first.config.seed, "seeds"))
    middle = (found.middle, found.low, found.high)
    return None if np.isnan(middle).any() else middle, found.underpowered


def _open(config: Config, run: Trained, when: str) -> tuple[int, str]:
    prepared = run.prepared
    name = f"{run.folder.parent.name}/{run.folder.name}"
    # Counted by the data of training: the days of a window stay the same where a file has grown since.
    fingerprint = str(run.record["data_fingerprint"])
    opening = record_opening(Path(config.output_root), fingerprint, prepared.fold.name, name, when)
    return opening.count, opening.head


def _part(
    config: Config, run: Trained, policy: Policy, opened: dict[str, int], others: dict[str, Track] | None = None
) -> Part:
    prepared, own = run.prepared, run.config
    rng = numpy_stream(own.seed, "reality")
    whole = run.policy.at_whole_tilt()  # of a policy that abstains no part is worth anything
    decisions = prepared.fold.validation.decisions
    block = prepared.market.calendar.rows(BLOCK)
    taken = {POLICY: whole.act, **variants(whole, prepared.spec.experts, decisions, rng, block)}
    evaluation = evaluate_policy(
        prepared.market,
        prepared.fold,
        prepared.accounting,
        policy,
        scaling=prepared.scaling,
        frequency=own.env.rebalance,
        samples=config.evaluation.bootstrap_samples,
        block_days=prepared.market.calendar.rows(config.evaluation.block_days),
        seed=own.seed,
        expert_names=prepared.spec.experts,
        window_opened=opened[prepared.fold.name],
        diagnostics={k: v for k, v in run.summary.get("diagnostics", {}).items() if v is not None},
        warnings=(*prepared.market.warnings, *((SURVIVORS,) if own.env.source == "sp500" else ())),
        variants=taken if policy is run.policy else {},  # an average has no one gate to take a part from
        others=others,
        own_benchmark=own.env.benchmark != EQUAL_WEIGHT,
    )
    return Part(evaluation, prepared.market, prepared.fold, prepared.accounting, policy.act)


def _track(run: Trained) -> Track:
    prepared = run.prepared
    return backtest(prepared.market, prepared.fold.test, prepared.accounting, {POLICY: run.policy.act})[POLICY]


def _members(
    config: Config, tracks: dict[str, Track], evaluation: Evaluation, market: Market, seed: int
) -> tuple[Member, ...]:
    """Each run on its own, against the 1/N that the page's verdict compares with."""
    opponent = evaluation.verdict.opponent
    rivals = {opponent: evaluation.baselines[opponent]}
    block = market.calendar.rows(config.evaluation.block_days)
    settings = {"samples": config.evaluation.bootstrap_samples, "block_days": block}
    return tuple(Member(name, track_metrics(t), judge(t, rivals, seed=seed, **settings)) for name, t in tracks.items())
