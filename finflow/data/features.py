"""Twelve causal, scale-free features per asset, in an extensible table, and the history that they read.

A feature is a function of a `History` (genuine market prices, their returns, rolling windows over them) that returns
[T, d]; row t uses prices up to the close of t. NaN means not available and becomes 0. Windows are trading days, which
the calendar turns into rows (a year of seven-day weeks has 365 rows). Chart indicators (five closes, RSI 14, MACD
12-26-9, 20-close bands) count closes instead, as charts do. Nothing is clipped: each window contains the current day,
which bounds every ratio.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.market import BUSINESS, SPREAD, Calendar
from finflow.errors import ConfigError
from finflow.plugins import chosen

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


Feature = Callable[[History], Array]

FEATURES: dict[str, Feature] = {}
FEATURE_GROUPS: dict[str, str] = {}
"""Name -> returns, technical, structure, momentum or signal; experts see one group each."""

SIGNAL = "signal"
SIGNAL_PREFIX = "signal:"


def feature(name: str, group: str) -> Callable[[Feature], Feature]:
    """Register a function as a feature."""

    def register(function: Feature) -> Feature:
        FEATURES[name] = function
        FEATURE_GROUPS[name] = group
        return function

    return register


def group_of(name: str) -> str:
    """Group of a feature by its name, a user's own signals included."""
    return SIGNAL if name.startswith(SIGNAL_PREFIX) else FEATURE_GROUPS.get(name, SIGNAL)


def feature_names(signals: Iterable[str], others: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of all features, of those of plugins, then of the signals as `signal:<name>`."""
    return (*FEATURES, *others, *(f"{SIGNAL_PREFIX}{name}" for name in signals))


def asset_features(history: History, given: Signals) -> NDArray[np.float32]:
    """`FEATURES`, then what is given, features of plugins and signals, [T, d, F] float32, 0 where not available."""
    features = np.zeros((*history.close.shape, len(FEATURES) + len(given)), dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for i, function in enumerate(FEATURES.values()):
            features[:, :, i] = finite(function(history))
    for i, values in enumerate(given.values(), start=len(FEATURES)):
        features[:, :, i] = finite(values)
    features[~history.live] = 0.0
    return features


def features_of_plugins(history: History, names: Sequence[str]) -> dict[str, Array]:
    """The features of plugins that `env.features` names, each [T, d].

    Raises
    ------
    ConfigError
        If there is none of a name, FinFlow has one, or what a plugin gives has another shape.
    """
    found: dict[str, Array] = {}
    for name in names:
        if name in FEATURES or name.startswith(SIGNAL_PREFIX):
            raise ConfigError(f"env.features={name}: a name of FinFlow's own; the plugin should give it another")
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(chosen("env.features", name, {}, "features")(history), dtype=np.float64)
        if values.shape != history.close.shape:
            raise ConfigError(
                f"env.features={name}: the plugin gives {list(values.shape)}; should be {list(history.close.shape)}, a"
                " row a day and a column a name"
            )
        found[name] = values
    return found


@feature("return_1d", "returns")
def return_1d(history: History) -> Array:
    """Day's log return over the 63-day volatility."""
    return history.log_return / history.volatility_63


@feature("return_5d", "returns")
def return_5d(history: History) -> Array:
    """Mean log return of five closes over its standard error by the 63-day volatility."""
    return rolling_mean(history.log_return, 5) * math.sqrt(5) / history.volatility_63


@feature("volatility_ratio", "returns")
def volatility_ratio(history: History) -> Array:
    """Log of the 21-day over the 252-day volatility."""
    return np.log(history.volatility_21 / history.volatility_252)


@feature("rsi_14", "technical")
def rsi_14(history: History) -> Array:
    """Wilder's relative strength index over 14 closes, moved from 0 ... 100 to -1 ... 1."""
    change = np.full(history.close.shape, np.nan)
    change[1:] = np.diff(history.close, axis=0)
    gain = ewma(np.maximum(change, 0.0), 1 / 14, 14)
    loss = ewma(np.maximum(-change, 0.0), 1 / 14, 14)
    return (gain - loss) / (gain + loss)


@feature("macd", "technical")
def macd(history: History) -> Array:
    """MACD 12-26-9 of log prices: the line less its signal line, over the 63-day volatility."""
    log_close = np.log(history.close)
    line = ewma(log_close, 2 / 13, 26) - ewma(log_close, 2 / 27, 26)
    return (line - ewma(line, 2 / 10, 9)) / history.volatility_63


@feature("bollinger_20", "technical")
def bollinger_20(history: History) -> Array:
    """Distance from the mean of 20 closes in half-widths of the Bollinger band (two population deviations)."""
    mean = rolling_mean(history.close, 20)
    std = rolling_std(history.close, 20, ddof=0)
    return np.where(std > 1e-8 * mean, (history.close - mean) / (2 * std), np.nan)


@feature("activity", "technical")
def activity(history: History) -> Array:
    """63-day z-score of log volume where there is volume, else of the absolute return."""
    size, rows = np.abs(history.log_return), history.spread_rows(63)
    moves = (size - rolling_mean(size, rows)) / rolling_std(size, rows)
    if history.volume is None:
        return moves
    volume = np.log(np.where(history.volume > 0, history.volume, np.nan))
    traded = (volume - rolling_mean(volume, rows)) / rolling_std(volume, rows)
    return np.where(np.isfinite(traded), traded, moves)


@feature("correlation_126", "structure")
def correlation_126(history: History) -> Array:
    """Correlation with 1/N over 126 days."""
    covariance, own, market = _moments(history)
    return np.clip(covariance / np.sqrt(own * market), -1.0, 1.0)


@feature("beta_126", "structure")
def beta_126(history: History) -> Array:
    """Slope of simple returns on those of 1/N over 126 days."""
    covariance, _, market = _moments(history)
    return covariance / market


@feature("drawdown_252", "structure")
def drawdown_252(history: History) -> Array:
    """Price over its 252-day high, less one: 0 at the high, never under -1."""
    return history.close / rolling_max(history.close, history.rows(252)) - 1


@feature("momentum_21", "momentum")
def momentum_21(history: History) -> Array:
    """Log return of 21 days over its standard deviation by the 63-day volatility."""
    rows = history.rows(21)
    return np.log(history.close / lagged(history.close, rows)) / (math.sqrt(rows) * history.volatility_63)


@feature("momentum_12_1", "momentum")
def momentum_12_1(history: History) -> Array:
    """Log return from t-252 to t-21 over its standard deviation by the 252-day volatility."""
    year, month = history.rows(252), history.rows(21)
    path = np.log(lagged(history.close, month) / lagged(history.close, year))
    return path / (math.sqrt(year - month) * history.volatility_252)


def _moments(history: History) -> tuple[Array, Array, Array]:
    """126-day covariance with 1/N [T, d], own variance [T, d], variance of 1/N [T, 1]; NaN without risk."""
    own, market, rows = history.simple_return, history.index[:, None], history.spread_rows(126)
    own_mean, market_mean = rolling_mean(own, rows), rolling_mean(market, rows)
    covariance = rolling_mean(own * market, rows) - own_mean * market_mean
    own_variance = rolling_std(own, rows, ddof=0) ** 2
    market_variance = rolling_std(market, rows, ddof=0) ** 2
    return covariance, _risky(own_variance), _risky(market_variance)


def _risky(variance: Array) -> Array:
    return np.where(variance > 1e-16, variance, np.nan)
