"""Evaluation of one policy on one test window: tracks, metrics, verdicts, regimes, costs, warnings."""

from collections.abc import Mapping, Sequence

import numpy as np

from finflow.allocators.baselines import HOLD
from finflow.data.prices import faded_warnings
from finflow.evaluation.backtest import (
    BENCHMARK,
    MONTHLY,
    POLICY,
    Bootstrap,
    Candidate,
    Task,
    baseline_tracks,
    benchmark_track,
    equal_weight_name,
    equal_weight_track,
    frequent_tracks,
    online_selection_tracks,
)
from finflow.evaluation.costs import break_even_bps, cost_table
from finflow.evaluation.linear_tilt import LINEAR, fit_linear_tilt
from finflow.evaluation.metrics import by_regime, decision_regimes, track_metrics
from finflow.evaluation.result import Evaluation, Metrics, Track, Verdict
from finflow.evaluation.robustness import lag_flags, scrutinise
from finflow.evaluation.verdict import benchmark_verdict, scaled_track, verdict_of, volatility_scale
from finflow.schema import OnlineSelection

COLLAPSED = 0.005  # yearly tracking error below which a policy counts as a copy
SUSPICIOUS_SHARPE = 2.0


def evaluate_policy(
    task: Task,
    candidate: Candidate,
    bootstrap: Bootstrap,
    *,
    window_opened: int,
    warnings: Sequence[str] = (),
    others: Mapping[str, Track] | None = None,
    own_benchmark: bool = False,
    online_selection: Sequence[OnlineSelection] = (),
) -> Evaluation:
    """Evaluate a policy on the fold's test window. The only function that looks at test returns.

    Parameters
    ----------
    bootstrap : of the verdict and every comparison.
    window_opened : how often this window has been opened, from `test_window_log.record_opening`.
    warnings : of earlier steps; those of this evaluation are appended.
    others : tracks of other policies over the same window, shown and tested beside the baselines.
    own_benchmark : whether `market.benchmark` is the user's own, not 1/N: it is then a rival with a verdict of its own.
    online_selection : classical algorithms that join the baselines, on the market's decision days.
    """
    market, fold, accounting, policy = task.market, task.fold, task.accounting, candidate.policy
    window = fold.test
    track = policy if isinstance(policy, Track) else task.track(window, policy.act)
    baselines = baseline_tracks(market, window, accounting)
    opponents = {name: baselines[name] for name in dict.fromkeys((equal_weight_name(market.rebalance), MONTHLY))}
    verdict = verdict_of(track, opponents, bootstrap)
    linear = fit_linear_tilt(task, candidate.scaling)
    baselines[LINEAR] = task.track(window, linear.strategy(market), LINEAR)
    if own_benchmark:
        baselines[BENCHMARK] = benchmark_track(market, window)
    rivals = {**baselines, **frequent_tracks(market, window, accounting)}
    rivals |= online_selection_tracks(market, window, accounting, online_selection)
    rivals |= others or {}
    tracks = {POLICY: track, **rivals}
    metrics = {name: track_metrics(t) for name, t in tracks.items()}
    regime = decision_regimes(market, window)
    tables, days = by_regime(regime, tracks)
    gate, rate = np.zeros((len(window), 0)), np.full(len(window), np.nan)
    if not isinstance(policy, Track):
        gate, rate = policy.explain(np.asarray(window.decisions, dtype=np.int64), track.drifted, track.drawdown_before)
    opponent = opponents[verdict.opponent]
    scrutiny = scrutinise(task, candidate, bootstrap, tracks, verdict.opponent, linear.facts())
    flags = red_flags(track, metrics[POLICY], opponents, baselines[HOLD])
    flags += lag_flags(metrics[POLICY], scrutiny.lagged)
    flags += faded_warnings(market, fold.train)
    return Evaluation(
        verdict=verdict,
        scaled_verdict=_scaled_verdict(task, candidate, track, opponents, bootstrap),
        policy=track,
        baselines=rivals,
        metrics=metrics,
        by_regime=tables,
        regime_days=days,
        scrutiny=scrutiny,
        costs=cost_table(track, opponent, market, window) if track.booked else [],
        break_even_bps=break_even_bps(track, opponent, market, window) if track.booked else None,
        assets=market.assets,
        expert_names=tuple(candidate.experts),
        gate=gate,
        rate=rate,
        regime=regime,
        diagnostics=dict(candidate.diagnostics),
        warnings=(*warnings, *flags),
        window_opened=window_opened,
        cash=market.returns[window.start : window.stop, -1],
        benchmark=benchmark_verdict(track, rivals, bootstrap),
    )


def _scaled_verdict(
    task: Task, candidate: Candidate, track: Track, opponents: Mapping[str, Track], bootstrap: Bootstrap
) -> Verdict | None:
    """The verdict of the policy scaled to the volatility of 1/N on train rows; None where its own is unknown there."""
    market, train, accounting, policy = task.market, task.fold.train, task.accounting, candidate.policy
    if isinstance(policy, Track) or not candidate.scalable:
        return None
    scale = volatility_scale(task.track(train, policy.act), equal_weight_track(market, train, accounting))
    return verdict_of(
        scaled_track(track, market, task.fold.test, accounting.cost_rate, scale), opponents, bootstrap, scale
    )


def red_flags(policy: Track, metrics: Metrics, equal: Mapping[str, Track], hold: Track) -> list[str]:
    """Warnings about implausible results: a Sharpe ratio over 2, a copy of 1/N or of buy and hold, closures."""
    flags: list[str] = []
    if metrics.sharpe is not None and metrics.sharpe > SUSPICIOUS_SHARPE:
        flags.append(f"Sharpe ratio {metrics.sharpe:.2f} is above {SUSPICIOUS_SHARPE:g}: look for a leak first")
    for name, track in (*equal.items(), (hold.name, hold)):
        error = tracking_error(policy, track)
        if error < COLLAPSED:
            flags.append(
                f"collapsed to {name}: tracking error {100 * error:.2f} % a year, under {100 * COLLAPSED:.1f} %"
            )
    if policy.closures:
        flags.append(f"positions closed because their price had ended: {policy.closures}")
    return flags


def tracking_error(policy: Track, other: Track) -> float:
    """Annualised standard deviation of the net active return."""
    active = policy.net - other.net
    return float(np.std(active, ddof=1)) * policy.year**0.5 if len(active) > 1 else np.inf
