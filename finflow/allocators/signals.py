"""Histories that the priors read: each [T] or [T, d], known at the close of t."""

import numpy as np
from numpy.typing import NDArray

from finflow.data.benchmark import equal_weight
from finflow.data.market import FROZEN, TRADABLE, Market


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
