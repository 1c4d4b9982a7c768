"""Rolling Ledoit-Wolf covariance, the input of every risk-based allocator at the close of t."""

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import TRADABLE, Market

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
