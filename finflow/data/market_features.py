"""Causal features of the market as a whole, its regime, and the standardisation of all features on train rows.

A regime is the volatility of 1/N relative to its past, or a crisis by drawdown, without smoothing. The scaling is
fitted on train rows alone and stored with the weights.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.features import Array, History, finite, lagged, rolling_mean, rolling_std, volatility
from finflow.data.market import ABSENT, BUSINESS, NO_LABEL, REGIMES, SPREAD, TRADABLE, Calendar, Fold, Market
from finflow.errors import ConfigError, DataError
from finflow.schema.sections import Regimes

VOLATILITY_DAYS = 21
MIN_DAYS, SHORT_DAYS = 756, 252
"""Days of volatility that the expanding quantiles need, and the smaller number for a short history."""

STABLE, NORMAL, VOLATILE, CRISIS = (REGIMES.index(name) for name in ("stable", "normal", "volatile", "crisis"))


def drawdown(index: NDArray[np.float64]) -> NDArray[np.float64]:
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

    volatility: NDArray[np.float64]
    stable: NDArray[np.float64]
    enter_volatile: NDArray[np.float64]
    leave_volatile: NDArray[np.float64]
    loss: NDArray[np.float64]
    enter_crisis: NDArray[np.float64]
    leave_crisis: NDArray[np.float64]


def regime_gauges(index: NDArray[np.float64], rules: Regimes, calendar: Calendar = BUSINESS) -> Gauges:
    """Gauges of [T] simple returns of 1/N, NaN before its first."""
    volatility = pd.Series(index).rolling(calendar.rows(VOLATILITY_DAYS, SPREAD)).std()
    past = volatility.expanding(_least_rows(volatility.to_numpy(), calendar))
    return Gauges(
        volatility.to_numpy(),
        past.quantile(rules.stable).to_numpy(),
        past.quantile(rules.enter_volatile).to_numpy(),
        rules.leave_volatile * past.median().to_numpy(),
        drawdown(index),
        np.full(len(index), rules.enter_crisis),
        np.full(len(index), rules.leave_crisis),
    )


def _least_rows(volatility: NDArray[np.float64], calendar: Calendar) -> int:
    enough = calendar.rows(MIN_DAYS)
    return enough if np.isfinite(volatility).sum() >= enough else calendar.rows(SHORT_DAYS)


def label_regimes(
    index: NDArray[np.float64], rules: Regimes, calendar: Calendar = BUSINESS
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
    labels = _with_hysteresis(gauges)
    observed = int(np.isfinite(gauges.volatility).sum())
    enough, unit = calendar.rows(MIN_DAYS), calendar.unit
    if observed >= enough:
        return labels, ()
    short = calendar.rows(SHORT_DAYS)
    return labels, (f"regimes: {observed} {unit}s of volatility, under {enough}; labels begin after {short}",)


def _with_hysteresis(gauges: Gauges) -> NDArray[np.int8]:
    volatility, loss = gauges.volatility, gauges.loss
    labels = np.full(len(volatility), NO_LABEL, dtype=np.int8)
    volatile = crisis = False
    for t in range(len(volatility)):
        crisis = loss[t] >= gauges.leave_crisis[t] if crisis else loss[t] > gauges.enter_crisis[t]
        if np.isnan(gauges.stable[t]) or np.isnan(volatility[t]):
            continue
        volatile = volatility[t] >= (gauges.leave_volatile[t] if volatile else gauges.enter_volatile[t])
        calm = STABLE if volatility[t] <= gauges.stable[t] else NORMAL
        labels[t] = CRISIS if crisis else VOLATILE if volatile else calm
    return labels


def stretches(regime: NDArray[np.int8], rows: Iterable[int], label: str) -> list[tuple[int, int]]:
    """Maximal runs `start <= t < stop` of consecutive `rows` that carry `label`.

    Parameters
    ----------
    regime : [T] labels of a market; days before the first label count as `normal`.
    rows : increasing rows to look at, such as a window's decisions.
    label : a name of `REGIMES`, or `all`.

    Raises
    ------
    ConfigError
        If there is no such label.
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
    "index_volatility": index_volatility,
    "index_volatility_ratio": index_volatility_ratio,
    "mean_correlation": mean_correlation,
    "index_drawdown": index_drawdown,
    "breadth": breadth,
    "turbulence": turbulence,
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

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    market_mean: NDArray[np.float64]
    market_std: NDArray[np.float64]

    @classmethod
    def fit(cls, market: Market, fold: Fold) -> "FeatureScaling":
        """Fit on the decision rows of `fold.train`; no other row is used."""
        rows = slice(fold.train.decisions.start, fold.train.decisions.stop)
        cells = market.status[rows, :-1] == TRADABLE
        mean, std = _moments(market.features[rows][cells])
        market_mean, market_std = _moments(market.market_features[rows])
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

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Plain arrays by name, for the file of the weights."""
        return {
            "mean": self.mean,
            "std": self.std,
            "market_mean": self.market_mean,
            "market_std": self.market_std,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> "FeatureScaling":
        """Inverse of `to_arrays`."""
        return cls(arrays["mean"], arrays["std"], arrays["market_mean"], arrays["market_std"])


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = values.astype(np.float64)
    return wide.mean(axis=0), np.maximum(wide.std(axis=0), MIN_STD)


def _standardised(
    values: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    return np.clip((values - mean.astype(np.float32)) / std.astype(np.float32), -CLIP, CLIP)
