"""Causal features of the market as a whole, [T, M], and its regime as a one-hot."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finflow.data.history import Array, History, finite, lagged, rolling_mean, rolling_std, volatility
from finflow.data.market import NO_LABEL, REGIMES
from finflow.data.regimes import NORMAL, drawdown

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
