"""What a sceptic asks beyond the verdict, computed for every evaluation."""

import math
from collections.abc import Mapping

import numpy as np

from finflow.data.market import Fold, Market
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Strategy, backtest
from finflow.evaluation.baselines import baseline_tracks, equal_weight_track
from finflow.evaluation.lag import lagged
from finflow.evaluation.metrics import active_information_ratio, measure, sharpe_ratio
from finflow.evaluation.power import detectable_difference
from finflow.evaluation.result import Comparison, Metrics, Reality, Scrutiny, Track
from finflow.evaluation.spa import superior_predictive_ability
from finflow.evaluation.statistics import sharpe_difference
from finflow.evaluation.stress import stress_table
from finflow.seeding import numpy_stream

POLICY = "policy"
LOST = 0.5  # share of the Sharpe ratio that one day of lag may take before it is a red flag


def scrutinise(
    market: Market,
    fold: Fold,
    accounting: Accounting,
    act: Strategy,
    variants: Mapping[str, Strategy],
    track: Track,
    baselines: Mapping[str, Track],
    opponent: str,
    *,
    frequency: str,
    samples: int,
    block_days: int,
    seed: int,
) -> Scrutiny:
    """Scrutinise a policy on the fold's test window; `variants` and the best baseline are judged on validation rows.

    Parameters
    ----------
    act, variants : the policy, and what it is with one part taken away.
    track, baselines : of the test window.
    opponent : the 1/N of the verdict, one of `baselines`.
    """
    best = best_on_validation(market, fold, accounting, frequency)
    delayed = backtest(market, fold.test, accounting, {POLICY: lagged(act)})[POLICY]
    rivals = dict.fromkeys((opponent, best))
    return Scrutiny(
        comparisons=tuple(
            compare(track, baselines[name], samples=samples, block_days=block_days, seed=seed) for name in rivals
        ),
        best_baseline=best,
        spa_p=spa(track, baselines, opponent, samples, block_days, seed),
        lagged=measure(delayed.net, delayed.turnover, delayed.weights),
        stress=stress_table({POLICY: track, **baselines}),
        reality=reality_table(market, fold, accounting, act, variants, frequency),
        detectable=detectable(track, baselines[opponent]),
    )


def best_on_validation(market: Market, fold: Fold, accounting: Accounting, frequency: str) -> str:
    """Name of the baseline, 1/N apart, with the best Sharpe ratio on validation rows: chosen before the test."""
    tracks = baseline_tracks(market, fold.validation, accounting, frequency)
    ratios = {name: sharpe_ratio(t.net) for name, t in tracks.items() if not name.startswith("1/N")}
    return max(ratios, key=lambda name: -math.inf if ratios[name] is None else float(ratios[name] or 0.0))


def reality_table(
    market: Market,
    fold: Fold,
    accounting: Accounting,
    act: Strategy,
    variants: Mapping[str, Strategy],
    frequency: str,
) -> tuple[Reality, ...]:
    """The policy and its variants on validation rows."""
    tracks = backtest(market, fold.validation, accounting, {POLICY: act, **variants})
    benchmark = equal_weight_track(market, fold.validation, accounting, frequency)
    own = tracks[POLICY].weights
    return tuple(
        Reality(
            name,
            sharpe_ratio(t.net),
            active_information_ratio(t.net, benchmark.net),
            float(0.5 * np.abs(t.weights - own).sum(1).mean()),
        )
        for name, t in tracks.items()
    )


def lag_flags(metrics: Metrics, delayed: Metrics) -> list[str]:
    """A red flag where more than half of a positive Sharpe ratio is gone one close later."""
    if metrics.sharpe is None or delayed.sharpe is None or metrics.sharpe <= 0:
        return []
    lost = 1.0 - delayed.sharpe / metrics.sharpe
    if lost <= LOST:
        return []
    return [f"{lost:.0%} of the Sharpe ratio is lost at one day of lag: look at what the policy knows at the close"]


def compare(policy: Track, opponent: Track, *, samples: int, block_days: int, seed: int) -> Comparison:
    """Active information ratio and Sharpe difference of two tracks of the same days."""
    rng = numpy_stream(seed, f"comparison/{opponent.name}")
    result = sharpe_difference(policy.net, opponent.net, samples=samples, block_days=block_days, rng=rng)
    return Comparison(
        opponent.name,
        active_information_ratio(policy.net, opponent.net),
        result.difference,
        result.low,
        result.high,
        None if math.isnan(result.p_value) else result.p_value,
    )


def detectable(policy: Track, opponent: Track) -> float | None:
    """Sharpe difference that these days could detect; None where a ratio is undefined."""
    ours, theirs = sharpe_ratio(policy.net), sharpe_ratio(opponent.net)
    if ours is None or theirs is None or len(policy.net) < 3:
        return None
    correlation = min(float(np.corrcoef(policy.net, opponent.net)[0, 1]), 1.0)
    gain = detectable_difference(theirs, correlation, len(policy.net))
    return gain if math.isfinite(gain) else None


def spa(
    policy: Track, baselines: Mapping[str, Track], opponent: str, samples: int, block_days: int, seed: int
) -> float | None:
    """Hansen's consistent p-value that neither policy nor any baseline beats the opponent's Sharpe ratio."""
    strategies = [policy.net, *(t.net for name, t in baselines.items() if not name.startswith("1/N"))]
    moving = [net for net in strategies if sharpe_ratio(net) is not None]
    benchmark = baselines[opponent].net
    if not moving or sharpe_ratio(benchmark) is None or len(benchmark) < 10:
        return None
    rng = numpy_stream(seed, "spa")
    found = superior_predictive_ability(np.stack(moving, 1), benchmark, samples=samples, block_days=block_days, rng=rng)
    return None if math.isnan(found.consistent) else found.consistent
