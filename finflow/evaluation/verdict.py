"""The verdict: does the policy beat 1/N, net of costs, by more than chance explains?"""

import math
from collections.abc import Mapping

import numpy as np

from finflow.data.market import Market, Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import BENCHMARK, Bootstrap, Plan, backtest
from finflow.evaluation.metrics import sharpe_ratio, track_metrics
from finflow.evaluation.result import Track, Verdict, VerdictOutcome
from finflow.evaluation.sharpe_test import sharpe_difference

VERDICT = "verdict"
"""Stream of the bootstrap behind every difference of Sharpe ratios."""


def strongest(opponents: Mapping[str, Track]) -> str:
    """Name of the opponent with the highest Sharpe ratio; the first of equals."""
    ratios = {name: sharpe_ratio(track.net, track.year) for name, track in opponents.items()}
    defined = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    return max(defined, key=lambda name: defined[name], default=next(iter(opponents)))


def verdict_of(policy: Track, opponents: Mapping[str, Track], bootstrap: Bootstrap, scale: float = 1.0) -> Verdict:
    """Compare a policy with whichever opponent has the higher Sharpe ratio over the same days.

    BEATS only where the lower bound of the studentised 95 % interval of the Sharpe difference is above 0,
    WORSE THAN where the upper bound is below 0, else INDISTINGUISHABLE FROM: also where a ratio is undefined.

    Parameters
    ----------
    opponents : 1/N at the policy's frequency and monthly, by name.
    bootstrap : the draw comes from its stream `VERDICT`, as every comparison's does.
    scale : noted in the verdict when `policy` is a scaled one.
    """
    name = strongest(opponents)
    result = sharpe_difference(
        policy.net,
        opponents[name].net,
        samples=bootstrap.samples,
        block_days=bootstrap.block_days,
        rng=bootstrap.rng(VERDICT),
        year=policy.year,
    )
    outcome: VerdictOutcome = "INDISTINGUISHABLE FROM"
    if result.low > 0:
        outcome = "BEATS"
    elif result.high < 0:
        outcome = "WORSE THAN"
    return Verdict(
        outcome=outcome,
        difference=result.difference,
        low=result.low,
        high=result.high,
        opponent=name,
        samples=bootstrap.samples,
        block_days=result.block_days,
        p_value=None if math.isnan(result.p_value) else result.p_value,
        scale=scale,
    )


def benchmark_verdict(policy: Track, baselines: Mapping[str, Track], bootstrap: Bootstrap) -> Verdict | None:
    """The verdict against the user's own benchmark; None where it is not among the baselines."""
    return verdict_of(policy, {BENCHMARK: baselines[BENCHMARK]}, bootstrap) if BENCHMARK in baselines else None


def volatility_scale(policy_train: Track, benchmark_train: Track) -> float:
    """Factor that gives the policy the benchmark's volatility, both measured on train rows alone.

    1 where the policy has no volatility to scale. No look-ahead: nothing of the judged window enters.
    """
    ours = track_metrics(policy_train).volatility
    theirs = track_metrics(benchmark_train).volatility
    return theirs / ours if ours and theirs and sharpe_ratio(policy_train.net) is not None else 1.0


def scaled_track(policy: Track, market: Market, window: Window, cost_rate: float, scale: float) -> Track:
    """The policy with its risky weights times `scale`, the rest in cash, through the ledger.

    It trades on the days the policy traded. With `scale` above 1 cash may be negative: borrowed at the cash
    yield. The desk's limits are not applied again, since the policy's own weights already keep them.
    """
    targets = np.full((len(market.dates), market.n), np.nan)
    traded = policy.turnover > 0
    traded[0] = True
    scaled = scale * policy.weights
    scaled[:, -1] = 1.0 - scaled[:, :-1].sum(1)
    decisions = np.asarray(window.decisions)
    targets[decisions[traded]] = scaled[traded]
    name = f"{policy.name} x {scale:.2f}"
    plan = Plan(targets, np.ones(len(targets), dtype=np.bool_))
    return backtest(market, window, Accounting(cost_rate), {name: plan})[name]
