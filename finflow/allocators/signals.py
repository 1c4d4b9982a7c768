"""What the priors read, known at the close of t: returns and volatilities, covariance (Ledoit-Wolf), momentum.

Momentum is cross-sectional, 12-1 months (Jegadeesh & Titman 1993), plain and with a trend filter (Faber 2007).
"""

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import FROZEN, TRADABLE, Market
from finflow.data.series import equal_weight


def priced_returns(market: Market) -> NDArray[np.bool_]:
    """[T, d] bool: the return of day t lies between two prices."""
    priced = np.isfinite(market.close)
    both = np.zeros_like(priced)
    both[1:] = priced[1:] & priced[:-1]
    return both


def ewma_volatility(market: Market, decay: float) -> NDArray[np.float64]:
    """Exponentially weighted daily volatility, sqrt of v[t] = decay v[t-1] + (1 - decay) r[t]^2 (RiskMetrics 1996).

    Days without a return, and those on which a frozen price stood still, leave it as it was.

    Returns
    -------
    [T, d] float64, NaN before a name's first return.
    """
    risky = market.close.shape[1]
    returns = market.returns[:, :risky]
    counted = priced_returns(market) & ~((market.status[:, :risky] == FROZEN) & (returns == 0))
    variance = np.full(returns.shape, np.nan)
    last = np.full(risky, np.nan)
    for t, (square, counts) in enumerate(zip(returns**2, counted, strict=True)):
        mixed = np.where(np.isnan(last), square, decay * last + (1 - decay) * square)
        last = np.where(counts, mixed, last)
        variance[t] = last
    return np.sqrt(variance)


def equal_weight_returns(market: Market) -> NDArray[np.float64]:
    """[T] return from t-1 to t of 1/N over the names tradable at t-1, rebalanced daily, gross; 0 without names."""
    held = market.status[:, :-1] == TRADABLE
    return equal_weight(market.returns[:, :-1], held, np.zeros(len(held)))


def equal_weights(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1/N of the chosen names, all cash where there is none, [..., d] -> [..., n]."""
    count = chosen.sum(axis=-1, keepdims=True)
    return np.concatenate([chosen / np.maximum(count, 1), count == 0], axis=-1)


def rolling_drawdown(returns: NDArray[np.float64], days: int) -> NDArray[np.float64]:
    """[T] fraction lost since the highest of the last `days` + 1 closes, compounding `returns`; >= 0."""
    log_nav = np.cumsum(np.log1p(np.maximum(returns, -1 + 1e-12)))  # finite after a total loss, too
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(days, -np.inf), log_nav]), days + 1)
    return -np.expm1(log_nav - windows.max(axis=1))


def rolling_mean(values: NDArray[np.float64], counted: NDArray[np.bool_], days: int) -> NDArray[np.float64]:
    """[T, d] mean of the `values` that are counted among the last `days`; NaN where none is."""
    total, count = rolling_sum(np.where(counted, values, 0.0), days), rolling_sum(counted, days)
    return np.divide(total, count, out=np.full(values.shape, np.nan), where=count > 0)


def rolling_sum(values: NDArray[np.float64] | NDArray[np.bool_], days: int) -> NDArray[np.float64]:
    """[T, d] sum over the last `days` rows, over fewer at the start."""
    total = np.cumsum(values, axis=0, dtype=np.float64)
    lagged = np.zeros_like(total)
    lagged[days:] = total[:-days]
    return total - lagged


LOOKBACK = 252
"""Trading days behind an estimate: one year, as in the table of baselines, in the rows of the market's calendar."""

CHUNK_BYTES = 64_000_000
"""Working memory of one chunk of windows; larger chunks leave the cache and are slower."""


def usable_names(market: Market, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Names with enough history to estimate a covariance at the close of each row.

    A name is usable if it may be traded at t, has a price on the last `year_of(market)` + 1 days (so that every
    return of the window is one) and moved on at least half of them: a price that mostly stands still has no
    measurable risk, and minimum variance would put everything into it.

    Parameters
    ----------
    rows : [B] row indices.

    Returns
    -------
    [B, d] bool, known at the close of `rows`.
    """
    d, lookback = market.close.shape[1], year_of(market)
    priced = np.isfinite(market.close)
    moved = np.zeros_like(priced)
    moved[1:] = priced[1:] & priced[:-1] & (market.close[1:] != market.close[:-1])
    counts = np.zeros((2, len(priced) + 1, d), dtype=np.int64)
    np.cumsum(priced, axis=0, out=counts[0, 1:])
    np.cumsum(moved, axis=0, out=counts[1, 1:])
    enough = rows >= lookback
    first = np.where(enough, rows - lookback, 0)
    complete = counts[0, rows + 1] - counts[0, first] == lookback + 1
    moving = 2 * (counts[1, rows + 1] - counts[1, first + 1]) >= lookback
    return (market.status[rows, :d] == TRADABLE) & complete & moving & enough[:, None]


def ledoit_wolf(returns: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Covariance shrunk to a multiple of the identity by the optimal weight of Ledoit & Wolf (2004).

    Equal to `sklearn.covariance.LedoitWolf(assume_centered=False)` on the names in the mask.

    Parameters
    ----------
    returns : [B, L, d] daily returns; any finite value where masked.
    mask : [B, d] names that take part.

    Returns
    -------
    [B, d, d] covariance (ddof 0) per day; rows and columns outside the mask are those of the identity.
    """
    length = returns.shape[1]
    centred = np.where(mask[:, None, :], returns - returns.mean(axis=1, keepdims=True), 0.0)
    sample = centred.transpose(0, 2, 1) @ centred / length
    count = np.maximum(mask.sum(axis=1), 1)
    scale = np.trace(sample, axis1=1, axis2=2) / count
    # d * b2 and d * d2 of the paper: error of the sample covariance, and its distance from the target.
    norm = (sample**2).sum(axis=(1, 2))
    error = (((centred**2).sum(axis=2) ** 2).sum(axis=1) / length - norm) / length
    distance = norm - count * scale**2
    shrinkage = np.divide(np.minimum(error, distance), distance, out=np.zeros_like(error), where=distance > 0)
    shrunk = (1 - shrinkage)[:, None, None] * sample
    diagonal = np.where(mask, (shrinkage * scale)[:, None], 1.0)
    d = mask.shape[1]
    shrunk[:, range(d), range(d)] += diagonal
    return shrunk


def year_of(market: Market) -> int:
    """Rows of `LOOKBACK`."""
    return market.calendar.rows(LOOKBACK)


def rolling_covariance(market: Market, rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Ledoit-Wolf covariance of the year of returns that ends at each row.

    Parameters
    ----------
    rows : [B] row indices; the result holds d * d numbers for each, so pass long ranges in chunks.

    Returns
    -------
    covariance : [B, d, d] of daily returns, identity outside the mask.
    mask : [B, d] bool, the names of `usable_names`.
    """
    d, lookback = market.close.shape[1], year_of(market)
    mask = usable_names(market, rows)
    covariance = np.empty((len(rows), d, d))
    for part in chunks(len(rows), 8 * lookback * d):
        covariance[part] = ledoit_wolf(_windows(market, rows[part], lookback), mask[part])
    return covariance, mask


def rolling_volatility(market: Market, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sample standard deviation (ddof 1) of the year of returns that ends at each row.

    Returns
    -------
    [B, d] float64; means something only for the names of `usable_names`.
    """
    lookback = year_of(market)
    volatility = np.empty((len(rows), market.close.shape[1]))
    for part in chunks(len(rows), 8 * lookback * volatility.shape[1]):
        volatility[part] = _windows(market, rows[part], lookback).std(axis=1, ddof=1)
    return volatility


def _windows(market: Market, rows: NDArray[np.intp], lookback: int) -> NDArray[np.float64]:
    """Returns [B, L, d] of the days ending at each row; whatever is there where no whole window is."""
    days = np.maximum(rows[:, None] + np.arange(1 - lookback, 1), 0)
    return market.returns[days, : market.close.shape[1]]


def chunks(total: int, bytes_each: int) -> list[slice]:
    """Slices of `range(total)` whose items, of `bytes_each`, fill about `CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // (4 * bytes_each))
    return [slice(i, min(i + size, total)) for i in range(0, total, size)]


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
