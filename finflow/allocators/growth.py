"""Expected returns for the growth prior, shrunk hard: sample means are the noisiest input an optimiser can have."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.optimisers import standardise
from finflow.allocators.signals import equal_weight_returns, priced_returns, rolling_mean, rolling_sum
from finflow.data.market import Market

MEAN_DAYS = 756
"""Trading days of the sample means, or what there is of them (a year at the least): the estimate's error falls only
with the length of time, and the year that momentum looks at would make it a second momentum."""

Floats = NDArray[np.float64]


def shrunk_means(market: Market) -> Callable[[NDArray[np.intp], Floats, NDArray[np.bool_]], Floats]:
    """Daily expected returns in excess of cash, by Bayes-Stein shrinkage (Jorion 1986) to their common mean.

    mean_i = level + (1 - w) (m_i - mean m), w = (N + 2) / (N + 2 + L q), with m the sample means over L days of N
    names, q the quadratic form of m - mean m in the inverse covariance. The level is 1/N's mean over *all* days up
    to t: what a market pays shows over decades, not over three years.

    Returns
    -------
    Function of (rows [B], covariance [B, d, d] of daily returns, mask [B, d]) to means [B, d], 0 outside the mask.
    """
    risky = market.close.shape[1]
    cash = market.returns[:, risky]
    counted = priced_returns(market)
    window = market.calendar.rows(MEAN_DAYS)
    sample = rolling_mean(market.returns[:, :risky] - cash[:, None], counted, window)
    lengths = rolling_sum(counted, window)
    days = np.maximum(np.cumsum(counted.any(axis=1)), 1)
    level = np.cumsum(np.where(counted.any(axis=1), equal_weight_returns(market) - cash, 0.0)) / days

    def at(rows: NDArray[np.intp], covariance: Floats, mask: NDArray[np.bool_]) -> Floats:
        names = mask.sum(axis=1)
        own = np.where(mask, sample[rows], 0.0)
        centre = own.sum(axis=1) / np.maximum(names, 1)
        spread = np.where(mask, own - centre[:, None], 0.0)
        length = np.where(mask, lengths[rows], 0.0).sum(axis=1) / np.maximum(names, 1)
        sigma, correlation = standardise(covariance, mask)
        scores = spread / sigma
        form = (scores * np.linalg.solve(correlation, scores[:, :, None])[:, :, 0]).sum(axis=1)
        kept = length * form / (names + 2 + length * form)
        return np.where(mask, level[rows, None] + kept[:, None] * spread, 0.0)

    return at
