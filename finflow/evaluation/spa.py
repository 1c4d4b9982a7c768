"""Test of superior predictive ability: is the best of many strategies better than the benchmark?

Hansen (2005), "A test for superior predictive ability", J. Business & Economic Statistics 23. The null hypothesis is
that no strategy beats the benchmark; the statistic is the largest gain over it in units of its own standard error.
"""

import math
from dataclasses import dataclass

import numpy as np
from arch.bootstrap import SPA

from finflow.evaluation.metrics import FLAT
from finflow.evaluation.result import Floats

SAME = 1e-10
"""A gain that varies by less than this share of its two terms is rounding: both are the same strategy."""


@dataclass(frozen=True)
class SuperiorAbility:
    """p-values of the null hypothesis that no strategy beats the benchmark.

    consistent is the one to read; lower and upper are its bounds: strategies worse than the benchmark left as they
    are, or all put level with it. All are nan where the benchmark has no Sharpe ratio, and for fewer than five days.
    """

    lower: float
    consistent: float
    upper: float


def superior_predictive_ability(
    strategies: Floats, benchmark: Floats, *, samples: int, block_days: int, rng: np.random.Generator
) -> SuperiorAbility:
    """Test the Sharpe ratios of M strategies against a benchmark's over the same days.

    The gain of a day is the difference of `sharpe_contributions`, since mean returns favour whoever takes more risk.

    Strategies that are the benchmark itself, or have no Sharpe ratio, are left out; with none left all three are 1. A
    p-value is (1 + exceedances) / (samples + 1).

    Parameters
    ----------
    strategies : [R, M] daily net returns.
    benchmark : [R] daily net returns.
    samples : samples of the stationary bootstrap.
    block_days : its mean block; at most a fifth of R is used, as in `sharpe_difference`.
    rng : the named stream of the draw.
    """
    days = len(benchmark)
    block = max(1, min(block_days, days // 5))
    if days < 5 or np.ptp(benchmark) < FLAT:
        return SuperiorAbility(math.nan, math.nan, math.nan)
    defined = np.ptp(strategies, axis=0) >= FLAT
    gains = np.zeros_like(strategies)
    gains[:, defined] = sharpe_contributions(strategies[:, defined])
    base = sharpe_contributions(benchmark[:, None])[:, 0]
    excess = gains - base[:, None]
    kept = defined & (excess.std(0) > SAME * (gains.std(0) + base.std()))
    if not kept.any():
        return SuperiorAbility(1.0, 1.0, 1.0)
    excess = excess[:, kept]
    # `SPA(studentize=True)` of arch 8 compares plain means and uses variances only to recentre. Dividing each gain by
    # its standard deviation first makes the statistic Hansen's.
    studentised = excess / np.sqrt(stationary_variance(excess, block))
    test = SPA(np.zeros(days), -studentised, block_size=block, reps=samples, bootstrap="stationary", seed=rng)
    test.compute()
    return SuperiorAbility(*((1 + round(float(p) * samples)) / (samples + 1) for p in test.pvalues))


def sharpe_contributions(returns: Floats) -> Floats:
    """Contribution of each day to a daily Sharpe ratio: [R, M] -> [R, M], column means equal to the ratios (ddof 0).

    A Sharpe ratio is not a mean, but the test compares means. With z = (r - mean) / std and S = mean / std, the rows
    S + z - S (z^2 - 1) / 2 are S plus its influence function, so the bootstrap of their mean is that of the
    ratio to first order (the delta method of `sharpe_test`), the estimated volatility included.
    """
    spread = returns.std(0)
    z = (returns - returns.mean(0)) / spread
    ratio = returns.mean(0) / spread
    return ratio + z - ratio * (z**2 - 1) / 2


def stationary_variance(series: Floats, block: int) -> Floats:
    """Variance [M] of sqrt(R) times the stationary bootstrap's mean of [R, M] series, in closed form.

    Politis & Romano (1994), lemma 1: autocovariances weighted by (1 - i/R) q^i + (i/R) q^(R - i), q = 1 - 1 / block.
    """
    days = len(series)
    spectrum = np.fft.rfft(series - series.mean(0), 2 * days, axis=0)
    covariances = np.fft.irfft(np.abs(spectrum) ** 2, 2 * days, axis=0)[:days] / days
    lag = np.arange(1, days)
    stay = 1 - 1 / block
    weights = (1 - lag / days) * stay**lag + lag / days * stay ** (days - lag)
    return covariances[0] + 2 * weights @ covariances[1:]
