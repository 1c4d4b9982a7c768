"""Inputs of features: genuine market prices, their returns, and rolling windows over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.calendar import BUSINESS, SPREAD, Calendar

Array = NDArray[np.float64]

NO_RISK = 1e-8
"""Daily volatility below which a name counts as unmoved; dividing by it would amplify rounding."""


@dataclass(frozen=True)
class History:
    """Prices up to each row; every array of it is causal.

    Attributes
    ----------
    close : [T, d], NaN where there is no price or only a back-filled one (before the first move).
    live : [T, d] a price that has moved; features of other cells are 0.
    eligible : [T, d] live and not stale.
    index : [T] simple returns of 1/N over the eligible names, NaN before its first.
    volume : [T, d] or None.
    calendar : turns the days of a window into rows.
    """

    close: Array
    live: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    index: Array
    volume: Array | None
    calendar: Calendar = BUSINESS

    def rows(self, days: int) -> int:
        """Rows of so many trading days."""
        return self.calendar.rows(days)

    def spread_rows(self, days: int) -> int:
        """Rows of so many trading days, enough of them for a spread."""
        return self.calendar.rows(days, SPREAD)

    @cached_property
    def log_return(self) -> Array:
        """[T, d] log return from t-1 to t, NaN where either price is missing."""
        result = np.full(self.close.shape, np.nan)
        result[1:] = np.log(self.close[1:] / self.close[:-1])
        return result

    @cached_property
    def simple_return(self) -> Array:
        """[T, d] simple return from t-1 to t, NaN where either price is missing."""
        return np.expm1(self.log_return)

    @cached_property
    def volatility_21(self) -> Array:
        """[T, d] standard deviation of a month's log returns."""
        return volatility(self.log_return, self.spread_rows(21))

    @cached_property
    def volatility_63(self) -> Array:
        """[T, d] standard deviation of a quarter's log returns: the unit in which short moves are measured."""
        return volatility(self.log_return, self.spread_rows(63))

    @cached_property
    def volatility_252(self) -> Array:
        """[T, d] standard deviation of a year's log returns."""
        return volatility(self.log_return, self.spread_rows(252))


def rolling_mean(values: Array, days: int) -> Array:
    """Mean of the last `days` rows, NaN where one is missing; row t never depends on later rows, to the bit."""
    return np.asarray(pd.DataFrame(values).rolling(days).mean())


def rolling_max(values: Array, days: int) -> Array:
    """Largest of the last `days` rows, NaN where one is missing."""
    return pd.DataFrame(values).rolling(days).max().to_numpy()


def rolling_std(values: Array, days: int, ddof: int = 1) -> Array:
    """Standard deviation of the last `days` rows, NaN where one is missing."""
    return pd.DataFrame(values).rolling(days).std(ddof=ddof).to_numpy()


def ewma(values: Array, alpha: float, min_periods: int) -> Array:
    """Recursive average (1 - alpha) y + alpha x, begun with the first value."""
    return np.asarray(pd.DataFrame(values).ewm(alpha=alpha, adjust=False, min_periods=min_periods).mean())


def volatility(log_return: Array, days: int) -> Array:
    """Rolling standard deviation of log returns, NaN where there is no risk to divide by."""
    std = rolling_std(log_return, days)
    return np.where(std > NO_RISK, std, np.nan)


def lagged(values: Array, days: int) -> Array:
    """Values of `days` rows ago, NaN where there are none."""
    result = np.full(values.shape, np.nan)
    result[days:] = values[:-days] if days < len(values) else result[days:]
    return result


def finite(values: Array) -> NDArray[np.float32]:
    """Values as float32, 0 where there is none."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float32)


Signals = Mapping[str, Array]
