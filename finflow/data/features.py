"""Causal features of each asset and of the market, the market's regime, and their standardisation on train rows.

Twelve scale-free features per asset stand in an extensible table. A feature is a function of a `History` (genuine
market prices, their returns, rolling windows over them) that returns [T, d]; row t uses prices up to the close of t.
NaN means not available and becomes 0. Windows are trading days, which the calendar turns into rows (a year of
seven-day weeks has 365 rows). Chart indicators (five closes, RSI 14, MACD 12-26-9, 20-close bands) count closes
instead, as charts do. Nothing is clipped: each window contains the current day, which bounds every ratio.

A regime is the volatility of 1/N relative to its past, or a crisis by drawdown, without smoothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.market import ABSENT, BUSINESS, NO_LABEL, REGIMES, SPREAD, TRADABLE, Calendar, Fold, Market
from finflow.errors import ConfigError, DataError
from finflow.plugins import chosen
from finflow.schema.sections import Regimes

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
    result[days:] = values[: max(len(values) - days, 0)]
    return result


def finite(values: Array) -> NDArray[np.float32]:
    """Values as float32, 0 where there is none."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float32)


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


def asset_features(history: History, given: Mapping[str, Array]) -> NDArray[np.float32]:
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
    """The features of plugins that `env.features` names, each [T, d]; a ConfigError where one cannot be used."""
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


VOLATILITY_DAYS = 21
MIN_DAYS, SHORT_DAYS = 756, 252
"""Days of volatility that the expanding quantiles need, and the smaller number for a short history."""

STABLE, NORMAL, VOLATILE, CRISIS = (REGIMES.index(name) for name in ("stable", "normal", "volatile", "crisis"))


def drawdown(index: Array) -> Array:
    """Fraction lost since the running peak, [T], of an index with simple returns `index`; NaN counts as 0."""
    with np.errstate(divide="ignore"):  # a return of -1 is a wealth of 0
        log_wealth = np.cumsum(np.log1p(np.nan_to_num(index)))
    return -np.expm1(log_wealth - np.maximum(np.maximum.accumulate(log_wealth), 0.0))


class Gauges(NamedTuple):
    """Inputs of a label, each [T], NaN where not yet available.

    volatility of 1/N over `VOLATILITY_DAYS`, a day, and its levels: `stable` up to the first, `volatile` from the
    second until below the third. loss since the running peak of 1/N, a fraction, beyond which `crisis` begins, and
    below which it ends.
    """

    volatility: Array
    stable: Array
    enter_volatile: Array
    leave_volatile: Array
    loss: Array
    enter_crisis: Array
    leave_crisis: Array


def regime_gauges(index: Array, rules: Regimes, calendar: Calendar = BUSINESS) -> Gauges:
    """Gauges of [T] simple returns of 1/N, NaN before its first."""
    volatility = pd.Series(index).rolling(calendar.rows(VOLATILITY_DAYS, SPREAD)).std()
    enough = np.isfinite(volatility.to_numpy()).sum() >= calendar.rows(MIN_DAYS)
    past = volatility.expanding(calendar.rows(MIN_DAYS if enough else SHORT_DAYS))
    return Gauges(
        volatility.to_numpy(),
        past.quantile(rules.stable).to_numpy(),
        past.quantile(rules.enter_volatile).to_numpy(),
        rules.leave_volatile * past.median().to_numpy(),
        drawdown(index),
        np.full(len(index), rules.enter_crisis),
        np.full(len(index), rules.leave_crisis),
    )


def label_regimes(
    index: Array, rules: Regimes, calendar: Calendar = BUSINESS
) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """Label each day from prices up to its close.

    Parameters
    ----------
    index : [T] simple returns of 1/N, NaN before its first.
    rules : `env.regimes`.

    Returns
    -------
    labels : [T] int8, index into `REGIMES`, `NO_LABEL` before the first.
    warnings : one line where the history was too short for `MIN_DAYS`. This choice alone looks at the length of
        the data, never at its values.
    """
    gauges = regime_gauges(index, rules, calendar)
    volatility, loss = gauges.volatility, gauges.loss
    labels = np.full(len(index), NO_LABEL, dtype=np.int8)
    volatile = crisis = False
    for t in range(len(index)):
        crisis = loss[t] >= gauges.leave_crisis[t] if crisis else loss[t] > gauges.enter_crisis[t]
        if np.isnan(gauges.stable[t]) or np.isnan(volatility[t]):
            continue
        volatile = volatility[t] >= (gauges.leave_volatile[t] if volatile else gauges.enter_volatile[t])
        calm = STABLE if volatility[t] <= gauges.stable[t] else NORMAL
        labels[t] = CRISIS if crisis else VOLATILE if volatile else calm
    observed, enough, short = int(np.isfinite(volatility).sum()), calendar.rows(MIN_DAYS), calendar.rows(SHORT_DAYS)
    if observed >= enough:
        return labels, ()
    return labels, (f"regimes: {observed} {calendar.unit}s of volatility, under {enough}; labels begin after {short}",)


def stretches(regime: NDArray[np.int8], rows: Iterable[int], label: str) -> list[tuple[int, int]]:
    """Maximal runs `start <= t < stop` of consecutive `rows` that carry `label`.

    Parameters
    ----------
    regime : [T] labels of a market; days before the first label count as `normal`.
    rows : increasing rows to look at, such as a window's decisions.
    label : a name of `REGIMES`, or `all`; a ConfigError where it is another.
    """
    if label != "all" and label not in REGIMES:
        raise ConfigError(f"market_regime={label!r}: no such regime; choose one of all, {', '.join(REGIMES)}")
    chosen = np.fromiter(rows, dtype=np.int64)
    if label != "all":
        named = np.where(regime == NO_LABEL, NORMAL, regime)
        chosen = chosen[named[chosen] == REGIMES.index(label)]
    if not len(chosen):
        return []
    breaks = np.flatnonzero(np.diff(chosen) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(chosen, breaks)]


MarketFeature = Callable[[History], Array]

REGIME_PREFIX = "regime:"


def market_feature_names() -> tuple[str, ...]:
    """Names of `MARKET_FEATURES`, then of the one-hot of the regime."""
    return (*MARKET_FEATURES, *(f"{REGIME_PREFIX}{name}" for name in REGIMES))


def market_features(history: History, regime: NDArray[np.int8]) -> NDArray[np.float32]:
    """Features in the order of `market_feature_names`, [T, M] float32, 0 where not available.

    A day before the first label has the one-hot of `normal`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [finite(function(history)) for function in MARKET_FEATURES.values()]
    one_hot = np.eye(len(REGIMES), dtype=np.float32)[np.where(regime == NO_LABEL, NORMAL, regime)]
    return np.concatenate([np.stack(columns, axis=1), one_hot], axis=1)


def index_volatility(history: History) -> Array:
    """Log of the yearly volatility of 1/N over 21 days."""
    return np.log(_index_volatility(history, 21) * math.sqrt(history.calendar.year))


def index_volatility_ratio(history: History) -> Array:
    """Log of the 21-day over the 252-day volatility of 1/N."""
    return np.log(_index_volatility(history, 21) / _index_volatility(history, 252))


def mean_correlation(history: History) -> Array:
    """Mean correlation over 126 days between all pairs of names with a full window.

    With z the returns standardised within the window, var(mean_i z_i) = (1 + (N - 1) mean correlation) / N: exact,
    without a single correlation matrix.
    """
    days = history.spread_rows(126)
    returns = np.nan_to_num(history.log_return)
    std = rolling_std(history.log_return, days, ddof=0)
    scale = np.where(np.isfinite(std) & (std > 1e-8) & history.live, 1 / std, 0.0)
    result = np.full(len(returns), np.nan)
    for t in range(days - 1, len(returns)):
        count = int(np.count_nonzero(scale[t]))
        if count > 1:
            common = np.einsum("td,d->t", returns[t - days + 1 : t + 1], scale[t]) / count
            result[t] = (count * float(common.var()) - 1) / (count - 1)
    return result


def index_drawdown(history: History) -> Array:
    """Fraction that 1/N has lost since its running peak."""
    return drawdown(history.index)


def breadth(history: History) -> Array:
    """Share of names above the mean of their own last 200 days."""
    mean = rolling_mean(history.close, history.rows(200))
    known = np.isfinite(mean) & history.eligible
    return (known & (history.close > mean)).sum(axis=1) / known.sum(axis=1)


def turbulence(history: History) -> Array:
    """ln(1 + mean squared return of the day), each in units of the name's 252-day volatility of the day before."""
    surprise = history.log_return / lagged(history.volatility_252, 1)
    known = np.isfinite(surprise) & history.eligible
    return np.log1p(np.where(known, surprise**2, 0.0).sum(axis=1) / known.sum(axis=1))


def _index_volatility(history: History, days: int) -> Array:
    return volatility(np.log1p(history.index)[:, None], history.spread_rows(days))[:, 0]


MARKET_FEATURES: dict[str, MarketFeature] = {
    function.__name__: function
    for function in (index_volatility, index_volatility_ratio, mean_correlation, index_drawdown, breadth, turbulence)
}


CLIP = 5.0
MIN_STD = 1e-3
"""Features are of order one: a smaller spread on train rows is treated as a constant and not scaled up."""


@dataclass(frozen=True)
class FeatureScaling:
    """Mean and standard deviation of each feature on the train rows.

    Attributes
    ----------
    mean, std : [F] float64, over the tradable cells.
    market_mean, market_std : [M] float64; 0 and 1 for one-hots.
    """

    mean: Array
    std: Array
    market_mean: Array
    market_std: Array

    @classmethod
    def fit(cls, market: Market, fold: Fold) -> "FeatureScaling":
        """Fit on the decision rows of `fold.train`; no other row is used."""
        rows = slice(fold.train.decisions.start, fold.train.decisions.stop)
        cells = market.status[rows, :-1] == TRADABLE
        mean, std = _train_moments(market.features[rows][cells])
        market_mean, market_std = _train_moments(market.market_features[rows])
        one_hot = np.array([name.startswith(REGIME_PREFIX) for name in market.market_feature_names])
        return cls(mean, std, np.where(one_hot, 0.0, market_mean), np.where(one_hot, 1.0, market_std))

    def apply(self, market: Market) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Standardised features [T, d, F] and market features [T, M], within +-`CLIP`, float32.

        Cells without a price are 0, the train average.

        Raises
        ------
        DataError
            If the market has other features than the scaling was fitted on.
        """
        found = (market.features.shape[-1], market.market_features.shape[-1])
        if found != (len(self.mean), len(self.market_mean)):
            raise DataError(
                f"features: {found[0]} per asset and {found[1]} of the market, the scaling was fitted on "
                f"{len(self.mean)} and {len(self.market_mean)}; use the data and signals of the training run"
            )
        features = _standardised(market.features, self.mean, self.std)
        features[market.status[:, :-1] == ABSENT] = 0.0
        return features, _standardised(market.market_features, self.market_mean, self.market_std)

    def to_arrays(self) -> dict[str, Array]:
        """Plain arrays by name, for the file of the weights."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "FeatureScaling":
        """Inverse of `to_arrays`."""
        return cls(arrays["mean"], arrays["std"], arrays["market_mean"], arrays["market_std"])


def _train_moments(values: NDArray[np.float32]) -> tuple[Array, Array]:
    wide = values.astype(np.float64)
    return wide.mean(axis=0), np.maximum(wide.std(axis=0), MIN_STD)


def _standardised(values: NDArray[np.float32], mean: Array, std: Array) -> NDArray[np.float32]:
    return np.clip((values - mean.astype(np.float32)) / std.astype(np.float32), -CLIP, CLIP)
