"""Robustness checks beyond the verdict, computed for every evaluation."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from finflow.evaluation.backtest import (
    BENCHMARK,
    POLICY,
    Bootstrap,
    Candidate,
    Policy,
    Task,
    backtest,
    baseline_tracks,
    equal_weight_track,
    lagged,
)
from finflow.evaluation.linear_tilt import LINEAR
from finflow.evaluation.metrics import (
    active_information_ratio,
    decision_regimes,
    follows_regime,
    sharpe_ratio,
    stress_table,
    track_metrics,
)
from finflow.evaluation.result import Comparison, Floats, GateInformation, Metrics, Reality, Regression, Scrutiny, Track
from finflow.evaluation.sharpe_test import detectable_difference, sharpe_difference
from finflow.evaluation.spa import superior_predictive_ability
from finflow.evaluation.verdict import VERDICT

LOST = 0.5  # warn if one day of lag costs more than this share of the Sharpe ratio


def scrutinise(
    task: Task,
    candidate: Candidate,
    bootstrap: Bootstrap,
    tracks: Mapping[str, Track],
    opponent: str,
    regression: Regression,
) -> Scrutiny:
    """Check a policy on the fold's test window, and its variants and the best baseline on validation rows.

    Parameters
    ----------
    tracks : of the test window: `POLICY`'s, and those of all baselines.
    opponent : the 1/N of the verdict, one of the baselines.
    regression : behind the linear tilt, another of them.
    """
    policy, track = candidate.policy, tracks[POLICY]
    best = best_on_validation(task)
    reality, gate = reality_of(task, candidate, bootstrap)
    rivals = (tracks[opponent], tracks[best], tracks[LINEAR], *own(tracks))
    cash = task.market.returns[task.fold.test.start : task.fold.test.stop, -1]
    pairs = [*((track, rival) for rival in rivals), *over_cash(track, rivals[0], cash)]
    return Scrutiny(
        comparisons=tuple(compare(*pair, bootstrap) for pair in pairs),
        best_baseline=best,
        spa_p=spa(tracks, opponent, bootstrap),
        lagged=None if isinstance(policy, Track) else track_metrics(task.track(task.fold.test, lagged(policy.act))),
        stress=stress_table(tracks),
        reality=reality,
        gate=gate,
        detectable=detectable(track, tracks[opponent]),
        regression=regression,
    )


def reality_of(
    task: Task, candidate: Candidate, bootstrap: Bootstrap
) -> tuple[tuple[Reality, ...], GateInformation | None]:
    """The policy and its variants on validation rows, and what its gate follows; nothing of one without experts."""
    policy, window = candidate.policy, task.fold.validation
    if isinstance(policy, Track) or not candidate.experts:
        return (), None
    validated = backtest(task.market, window, task.accounting, candidate.variants or {POLICY: policy.act})
    benchmark, whole = equal_weight_track(task.market, window, task.accounting), next(iter(validated.values()))
    rows = tuple(reality_row(track, whole, benchmark, bootstrap) for track in validated.values())
    return rows, gate_on_validation(task, policy, whole)


def best_on_validation(task: Task) -> str:
    """Name of the baseline, 1/N apart, with the best Sharpe ratio on validation rows: chosen before the test."""
    tracks = baseline_tracks(task.market, task.fold.validation, task.accounting)
    ratios = {name: sharpe_ratio(t.net, t.year) for name, t in tracks.items() if not name.startswith("1/N")}
    return max(ratios, key=lambda name: -math.inf if ratios[name] is None else float(ratios[name] or 0.0))


def reality_row(variant: Track, policy: Track, benchmark: Track, bootstrap: Bootstrap) -> Reality:
    """The policy or one of its variants on validation rows, and the value of the part that it lacks."""
    return Reality(
        variant.name,
        sharpe_ratio(variant.net, variant.year),
        active_information_ratio(variant.net, benchmark.net, variant.year),
        float(0.5 * np.abs(variant.weights - policy.weights).sum(1).mean()),
        None if variant is policy else compare(policy, variant, bootstrap),
    )


def gate_on_validation(task: Task, policy: Policy, track: Track) -> GateInformation | None:
    """Whether the gate follows the regime along the policy's own track of the validation rows."""
    window = task.fold.validation
    rows = np.asarray(window.decisions, dtype=np.int64)
    gate, _ = policy.explain(rows, track.drifted, track.drawdown_before)
    return follows_regime(gate, decision_regimes(task.market, window))


def own(baselines: Mapping[str, Track]) -> tuple[Track, ...]:
    """The user's own benchmark, where it is among the baselines."""
    return (baselines[BENCHMARK],) if BENCHMARK in baselines else ()


def over_cash(track: Track, opponent: Track, cash: Floats) -> list[tuple[Track, Track]]:
    """Both tracks with the return of cash [R] taken off; nothing where cash earns nothing."""
    if not cash.any():
        return []
    name = f"{opponent.name}, both over cash"
    return [(replace(track, net=track.net - cash), replace(opponent, name=name, net=opponent.net - cash))]


def lag_flags(metrics: Metrics, delayed: Metrics | None) -> list[str]:
    """A warning where trading one close later loses more than half of a positive Sharpe ratio."""
    if metrics.sharpe is None or delayed is None or delayed.sharpe is None or metrics.sharpe <= 0:
        return []
    lost = 1.0 - delayed.sharpe / metrics.sharpe
    if lost <= LOST:
        return []
    share = f"{100 * lost:.0f} %"
    return [f"{share} of the Sharpe ratio is lost one close later: look at what the policy knows at the close"]


def compare(policy: Track, opponent: Track, bootstrap: Bootstrap) -> Comparison:
    """Active information ratio and Sharpe difference of two tracks of the same days."""
    result = sharpe_difference(
        policy.net, opponent.net, samples=bootstrap.samples, block_days=bootstrap.block_days,
        rng=bootstrap.rng(VERDICT),  # the verdict's draw: one pair of tracks has one p-value
        year=policy.year,
    )  # fmt: skip
    return Comparison(
        opponent.name,
        active_information_ratio(policy.net, opponent.net, policy.year),
        result.difference,
        result.low,
        result.high,
        None if math.isnan(result.p_value) else result.p_value,
    )


def detectable(policy: Track, opponent: Track) -> float | None:
    """Sharpe difference that these days could detect; None where a ratio is undefined."""
    ours, theirs = (sharpe_ratio(track.net, track.year) for track in (policy, opponent))
    if ours is None or theirs is None or len(policy.net) < 3:
        return None
    correlation = min(float(np.corrcoef(policy.net, opponent.net)[0, 1]), 1.0)
    gain = detectable_difference(theirs, correlation, len(policy.net), year=policy.year)
    return gain if math.isfinite(gain) else None


def spa(tracks: Mapping[str, Track], opponent: str, bootstrap: Bootstrap) -> float | None:
    """Hansen's consistent p-value that neither policy nor any simple portfolio beats the opponent's Sharpe ratio."""
    strategies = [track.net for name, track in tracks.items() if not name.startswith("1/N") and name != BENCHMARK]
    moving = [net for net in strategies if sharpe_ratio(net) is not None]
    benchmark = tracks[opponent].net
    if not moving or sharpe_ratio(benchmark) is None or len(benchmark) < 10:
        return None
    found = superior_predictive_ability(
        np.stack(moving, 1), benchmark, samples=bootstrap.samples, block_days=bootstrap.block_days,
        rng=bootstrap.rng("spa"),
    )  # fmt: skip
    return None if math.isnan(found.consistent) else found.consistent
