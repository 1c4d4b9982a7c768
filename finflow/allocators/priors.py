"""The experts' five prior portfolios: one causal portfolio per expert and day, precomputed for a market."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.covariance import chunks, rolling_covariance
from finflow.allocators.growth import shrunk_means
from finflow.allocators.momentum import momentum_trend
from finflow.allocators.optimisers import (
    inverse_volatility,
    kelly,
    maximum_diversification,
    minimum_variance,
    standardise,
)
from finflow.allocators.signals import equal_weight_returns, equal_weights, ewma_volatility, rolling_drawdown
from finflow.data.calendar import SPREAD, TRADING_YEAR
from finflow.data.market import TRADABLE, Market
from finflow.io.weights import cached_arrays

PRIORS = ("volatility", "correlation", "momentum", "defensive", "growth")

BENCHMARK = "benchmark"
"""Name of the expert that starts at e, the benchmark's portfolio."""

EXPERTS = (*PRIORS, BENCHMARK)

VERSION = 2
"""Part of the cache key: raise it with every change that moves a weight."""

TARGET_VOLATILITY = 0.10
"""Of the volatility prior, a year: that of a balanced fund, and below a stock portfolio's 15-20 % on most days, so
that its cash is a view on risk nearly always."""

EWMA_DECAY = 0.97
"""Half-life of 23 trading days (RiskMetrics' monthly value): 0.94 costs 1.8 times the turnover at the same
Sharpe ratio."""

CALM_VOLATILITY = 0.15
"""Yearly volatility of 1/N above which the defensive prior moves to cash: the long-run level of a stock index."""

DEEPEST_DRAWDOWN = 0.40
"""Drawdown of 1/N from its high of a year at which the defensive prior is all in cash: a great bear market."""

KELLY_FRACTION = 0.5
"""Half of Kelly: three quarters of the growth at a quarter of the variance, and a margin for errors of the mean."""

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Allocator = Callable[[Rows, Floats, NDArray[np.bool_]], Floats]


def prior_portfolios(market: Market, cache_dir: Path | None = None) -> Floats:
    """Prior portfolios P[t, k, :] of the experts in `EXPERTS`, decided at the close of t; the last is e.

    e is 1/N of the names tradable at t, all cash where there is none. A benchmark of the user's own is known by its
    returns alone; e stays 1/N beside it.

    Covariances, volatilities and momentum look back over the year ending at t, on names that are tradable at t and
    have its whole window (`usable_names`); all others get 0. With no such name a prior is all in cash, as every
    prior is over the first 252 days.

    Parameters
    ----------
    market : Market
    cache_dir : folder of cached arrays, or None to compute.

    Returns
    -------
    [T, K, n] float64, cash last, each row on the simplex.
    """
    key = f"priors-v{VERSION}-{market.fingerprint}"
    weights = cached_arrays(cache_dir, key, lambda: {"weights": _build(market)})["weights"]
    return np.concatenate([weights, equal_weights(market.status[:, :-1] == TRADABLE)[:, None]], axis=1)


def _build(market: Market) -> Floats:
    allocators = _allocators(market)
    total, d = market.close.shape
    weights = np.empty((total, len(PRIORS), d + 1))
    for part in chunks(total, 8 * d * d):
        rows = np.arange(part.start, part.stop)
        covariance, mask = rolling_covariance(market, rows)
        for k, name in enumerate(PRIORS):
            weights[part, k, :d] = allocators[name](rows, covariance, mask)
    weights[:, :, d] = np.maximum(1 - weights[:, :, :d].sum(axis=2), 0.0)
    return weights / weights.sum(axis=2, keepdims=True)


def _allocators(market: Market) -> dict[str, Allocator]:
    """Each prior as a function of (rows, covariance [B, d, d], mask [B, d]) to risky weights [B, d], sum <= 1."""
    year = market.calendar.year
    sigma = ewma_volatility(market, EWMA_DECAY if year == TRADING_YEAR else EWMA_DECAY ** (TRADING_YEAR / year))
    share = invested_share(market)
    mean = shrunk_means(market)

    def volatility(rows: Rows, covariance: Floats, mask: NDArray[np.bool_]) -> Floats:
        recent = np.where(mask, sigma[rows], 1.0)
        risk = recent[:, :, None] * standardise(covariance, mask)[1] * recent[:, None, :]
        return scale_to(TARGET_VOLATILITY / np.sqrt(year), inverse_volatility(recent, mask), risk)

    def correlation(_rows: Rows, covariance: Floats, mask: NDArray[np.bool_]) -> Floats:
        return maximum_diversification(covariance, mask)

    def momentum(rows: Rows, _covariance: Floats, _mask: NDArray[np.bool_]) -> Floats:
        return momentum_trend(market, rows)

    def defensive(rows: Rows, covariance: Floats, mask: NDArray[np.bool_]) -> Floats:
        return share[rows, None] * minimum_variance(covariance, mask)

    def growth(rows: Rows, covariance: Floats, mask: NDArray[np.bool_]) -> Floats:
        return kelly(KELLY_FRACTION * mean(rows, covariance, mask), covariance, mask)

    return {
        "volatility": volatility,
        "correlation": correlation,
        "momentum": momentum,
        "defensive": defensive,
        "growth": growth,
    }


def scale_to(target: float, weights: Floats, covariance: Floats) -> Floats:
    """Risky weights [B, d] scaled down where their volatility exceeds `target` (same unit of time); never up."""
    variance = ((weights[:, None, :] @ covariance)[:, 0, :] * weights).sum(axis=1)
    volatility = np.sqrt(np.maximum(variance, 0.0))
    return weights * (target / np.maximum(volatility, target))[:, None]


def invested_share(market: Market) -> Floats:
    """Share [T] of the defensive prior that is not cash: falls with the volatility and the drawdown of 1/N.

    min(1, calm / volatility of 21 days) * max(0, 1 - drawdown from the year's high / deepest).
    """
    returns = equal_weight_returns(market)
    calendar = market.calendar
    rows = calendar.rows(21, SPREAD)
    padded = np.concatenate([np.zeros(rows - 1), returns])
    month = np.lib.stride_tricks.sliding_window_view(padded, rows).std(axis=1, ddof=1) * np.sqrt(calendar.year)
    drawdown = rolling_drawdown(returns, calendar.rows(TRADING_YEAR))
    return CALM_VOLATILITY / np.maximum(month, CALM_VOLATILITY) * np.maximum(0.0, 1 - drawdown / DEEPEST_DRAWDOWN)
