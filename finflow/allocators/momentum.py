"""Cross-sectional momentum, 12-1 months (Jegadeesh & Titman 1993), plain and with a trend filter (Faber 2007)."""

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.covariance import usable_names, year_of
from finflow.data.market import Market

SKIP = 21
"""Trading days: the last month is left out: over so short a time prices tend to revert."""

TOP = 5
"""Names held, as in the table of baselines."""

TREND_DAYS = 200
"""Trading days of the moving average that separates a rising price from a falling one."""


def momentum_scores(market: Market, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return from close t-252 to close t-21.

    Returns
    -------
    [B, d], NaN where the name is not usable at t (see `usable_names`).
    """
    year, skip = year_of(market), market.calendar.rows(SKIP)
    mask = usable_names(market, rows)
    enough = rows >= year
    recent, old = market.close[np.where(enough, rows - skip, 0)], market.close[np.where(enough, rows - year, 0)]
    return np.divide(recent, old, out=np.full(mask.shape, np.nan), where=mask) - 1


def momentum_top(market: Market, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """The five names of highest 12-1 momentum, equally weighted.

    Returns
    -------
    [B, d] weights summing to 1, over fewer names where fewer are usable; all zero where none is.
    """
    chosen = _top(momentum_scores(market, rows))
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def momentum_trend(market: Market, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """The same five, but only those that rise: positive momentum and a price above its 200-day mean.

    A name that fails leaves its share to cash, so exposure falls as trends break, to none in a falling market.

    Returns
    -------
    [B, d] weights summing to at most 1.
    """
    scores = momentum_scores(market, rows)
    chosen = _top(scores)
    mean = np.full(scores.shape, np.nan)
    trend = market.calendar.rows(TREND_DAYS)
    for row, t in enumerate(rows):
        if t >= trend:
            mean[row] = market.close[t - trend + 1 : t + 1].mean(axis=0)
    with np.errstate(invalid="ignore"):
        rising = (scores > 0) & (market.close[rows] > mean)
    return (chosen & rising) / np.maximum(chosen.sum(axis=1, keepdims=True), 1)


def _top(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The `TOP` highest finite scores of each row, ties to the earlier name."""
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return (rank < TOP) & np.isfinite(scores)
