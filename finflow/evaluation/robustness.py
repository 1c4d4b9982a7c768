"""What a sceptic asks beyond the verdict, computed for every evaluation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from finflow.data.market import Fold, Market
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Rows, Strategy, backtest
from finflow.evaluation.baselines import baseline_tracks, equal_weight_track
from finflow.evaluation.benchmark import BENCHMARK
from finflow.evaluation.gate import follows_regime
from finflow.evaluation.lag import lagged
from finflow.evaluation.linear_tilt import LINEAR
from finflow.evaluation.metrics import active_information_ratio, sharpe_ratio, track_metrics
from finflow.evaluation.power import detectable_difference
from finflow.evaluation.regimes import decision_regimes
from finflow.evaluation.result import (
    Comparison,
    Floats,
    GateInformation,
    Metrics,
    Reality,
    Regression,
    Scrutiny,
    Track,
)
from finflow.evaluation.sharpe_test import sharpe_difference
from finflow.evaluation.spa import superior_predictive_ability
from finflow.evaluation.stress import stress_table
from finflow.evaluation.verdict import VERDICT
from finflow.seeding import numpy_stream

Explain = Callable[[Rows, Floats, Floats], tuple[Floats, Floats]]
"""Gate [E, K] and trading rate [E] of decisions at rows [E], holding [E, n], in a drawdown of [E]."""

POLICY = "policy"
LOST = 0.5  # share of the Sharpe ratio that one day of lag may take before it is a red flag


def scrutinise(
    market: Market,
    fold: Fold,
    accounting: Accounting,
    act: Strategy,
    explain: Explain,
    variants: Mapping[str, Strategy],
    track: Track,
    baselines: Mapping[str, Track],
    opponent: str,
    regression: Regression,
    *,
    frequency: str,
    samples: int,
    block_days: int,
    seed: int,
) -> Scrutiny:
    """Scrutinise a policy on the fold's test window; `variants` and the best baseline are judged on validation rows.

    Parameters
    ----------
    act, variants : the policy, and what it is with one part taken away; a variant named `POLICY` is the policy that
        the others are compared with.
    explain : the policy's gate and rate.
    track, baselines : of the test window.
    opponent : the 1/N of the verdict, one of `baselines`.
    regression : behind the linear tilt, another of them.
    """
    best = best_on_validation(market, fold, accounting, frequency)
    validated = backtest(market, fold.validation, accounting, {POLICY: act, **variants})
    benchmark = equal_weight_track(market, fold.validation, accounting, frequency)
    delayed = backtest(market, fold.test, accounting, {POLICY: lagged(act)})[POLICY]
    rivals = (baselines[opponent], baselines[best], baselines[LINEAR], *own(baselines))
    cash = market.returns[fold.test.start : fold.test.stop, -1]
    pairs = [*((track, rival) for rival in rivals), *over_cash(track, rivals[0], cash)]
    return Scrutiny(
        comparisons=tuple(compare(*pair, samples=samples, block_days=block_days, seed=seed) for pair in pairs),
        best_baseline=best,
        spa_p=spa(track, baselines, opponent, samples, block_days, seed),
        lagged=track_metrics(delayed),
        stress=stress_table({POLICY: track, **baselines}),
        reality=tuple(
            reality_row(name, t, validated[POLICY], benchmark, samples=samples, block_days=block_days, seed=seed)
            for name, t in validated.items()
        ),
        gate=gate_on_validation(market, fold, explain, validated[POLICY]),
        detectable=detectable(track, baselines[opponent]),
        regression=regression,
    )


def best_on_validation(market: Market, fold: Fold, accounting: Accounting, frequency: str) -> str:
    """Name of the baseline, 1/N apart, with the best Sharpe ratio on validation rows: chosen before the test."""
    tracks = baseline_tracks(market, fold.validation, accounting, frequency)
    ratios = {name: sharpe_ratio(t.net, t.year) for name, t in tracks.items() if not name.startswith("1/N")}
    return max(ratios, key=lambda name: -math.inf if ratios[name] is None else float(ratios[name] or 0.0))


def reality_row(
    name: str, variant: Track, policy: Track, benchmark: Track, *, samples: int, block_days: int, seed: int
) -> Reality:
    """The policy or one of its variants on validation rows, and what the part that it lacks is worth there."""
    worth = None if variant is policy else compare(policy, variant, samples=samples, block_days=block_days, seed=seed)
    return Reality(
        name,
        sharpe_ratio(variant.net, variant.year),
        active_information_ratio(variant.net, benchmark.net, variant.year),
        float(0.5 * np.abs(variant.weights - policy.weights).sum(1).mean()),
        worth,
    )


def gate_on_validation(market: Market, fold: Fold, explain: Explain, track: Track) -> GateInformation | None:
    """Whether the gate follows the regime along the policy's own track of the validation rows."""
    rows = np.asarray(fold.validation.decisions, dtype=np.int64)
    gate, _ = explain(rows, track.drifted, track.drawdown_before)
    return follows_regime(gate, decision_regimes(market, fold.validation))


def own(baselines: Mapping[str, Track]) -> tuple[Track, ...]:
    """The user's own benchmark, where it is among the baselines."""
    return (baselines[BENCHMARK],) if BENCHMARK in baselines else ()


def over_cash(track: Track, opponent: Track, cash: Floats) -> list[tuple[Track, Track]]:
    """Both tracks with the return of cash [R] taken off; nothing where cash earns nothing."""
    if not cash.any():
        return []
    name = f"{opponent.name}, both over cash"
    return [(replace(track, net=track.net - cash), replace(opponent, name=name, net=opponent.net - cash))]


def lag_flags(metrics: Metrics, delayed: Metrics) -> list[str]:
    """A red flag where more than half of a positive Sharpe ratio is gone one close later."""
    if metrics.sharpe is None or delayed.sharpe is None or metrics.sharpe <= 0:
        return []
    lost = 1.0 - delayed.sharpe / metrics.sharpe
    if lost <= LOST:
        return []
    share = f"{100 * lost:.0f} %"
    return [f"{share} of the Sharpe ratio is lost one close later: look at what the policy knows at the close"]


def compare(policy: Track, opponent: Track, *, samples: int, block_days: int, seed: int) -> Comparison:
    """Active information ratio and Sharpe difference of two tracks of the same days."""
    rng = numpy_stream(seed, VERDICT)  # the verdict's draw: one pair of tracks has one p-value
    result = sharpe_difference(
        policy.net, opponent.net, samples=samples, block_days=block_days, rng=rng, year=policy.year
    )
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


def spa(
    policy: Track, baselines: Mapping[str, Track], opponent: str, samples: int, block_days: int, seed: int
) -> float | None:
    """Hansen's consistent p-value that neither policy nor any simple portfolio beats the opponent's Sharpe ratio."""
    rivals = {name: t for name, t in baselines.items() if not name.startswith("1/N") and name != BENCHMARK}
    strategies = [policy.net, *(t.net for t in rivals.values())]
    moving = [net for net in strategies if sharpe_ratio(net) is not None]
    benchmark = baselines[opponent].net
    if not moving or sharpe_ratio(benchmark) is None or len(benchmark) < 10:
        return None
    rng = numpy_stream(seed, "spa")
    found = superior_predictive_ability(np.stack(moving, 1), benchmark, samples=samples, block_days=block_days, rng=rng)
    return None if math.isnan(found.consistent) else found.consistent
