"""Trading status of each name at each close, from prices up to that close, and the returns that follow."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import ABSENT, FROZEN, TRADABLE


class Trading(NamedTuple):
    """State of each name at each close, [T, d].

    present : a price exists.
    live : a price exists and has moved since the first one, so that it is not a back-fill.
    stale : the last `stale_run` or more closes are equal.
    status : ABSENT, FROZEN or TRADABLE, int8.
    """

    present: NDArray[np.bool_]
    live: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    status: NDArray[np.int8]


def equal_run(close: NDArray[np.float64]) -> NDArray[np.int64]:
    """Length of the run of equal closes that ends at each close, [T, d]; 0 where there is no price."""
    rows = np.arange(len(close))[:, None]
    fresh = np.ones(close.shape, dtype=np.bool_)
    fresh[1:] = close[1:] != close[:-1]  # NaN differs from everything: a blank starts a new run
    begun = np.maximum.accumulate(np.where(fresh, rows, 0), axis=0)
    return np.where(np.isfinite(close), rows - begun + 1, 0)


def trading(close: NDArray[np.float64], stale_run: int, min_history: int) -> Trading:
    """Judge every cell of `close` [T, d] by its own column up to its own row.

    A name is TRADABLE when its run of equal closes is under `stale_run` and it has `min_history` priced days since
    its first move: a ticker back-filled flat until its listing is frozen all along the flat stretch, its first days
    included, and for as long afterwards as the lookbacks of features and priors need.
    """
    present = np.isfinite(close)
    moved = np.zeros(close.shape, dtype=np.bool_)
    moved[1:] = present[1:] & present[:-1] & (close[1:] != close[:-1])
    live = present & np.maximum.accumulate(moved, axis=0)
    stale = equal_run(close) >= stale_run
    ready = np.cumsum(live, axis=0) >= min_history
    status = np.where(live & ready & ~stale, TRADABLE, np.where(present, FROZEN, ABSENT))
    return Trading(present, live, stale, status.astype(np.int8))


def simple_returns(close: NDArray[np.float64], delist_return: float) -> NDArray[np.float64]:
    """Return from close t-1 to close t, [T, d]; row 0 is 0.

    0 where either price is missing, but `delist_return` on the first day without a price after one with: known on
    that day, whether or not prices come back. A last price in the last row has no such day.
    """
    returns = np.zeros(close.shape)
    present = np.isfinite(close)
    both = present[1:] & present[:-1]
    np.divide(close[1:], close[:-1], out=returns[1:], where=both)
    returns[1:][both] -= 1.0
    returns[1:][present[:-1] & ~present[1:]] = delist_return
    return returns
