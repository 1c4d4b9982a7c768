"""Causal market regimes: volatility of 1/N against its own past, and crisis by drawdown. Nothing is smoothed."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.market import NO_LABEL, REGIMES
from finflow.errors import ConfigError

VOLATILITY_DAYS = 21
MIN_DAYS, SHORT_DAYS = 756, 252
"""Days of volatility that the expanding quantiles need, and what a history too short for that makes do with."""
ENTER_VOLATILE = 0.8
"""Expanding quantile of volatility at which `volatile` begins."""
LEAVE_VOLATILE = 1.2
"""Multiple of the expanding median below which `volatile` ends."""
ENTER_CRISIS, LEAVE_CRISIS = 0.15, 0.075
"""Drawdown of 1/N beyond which `crisis` begins, and below which it ends."""

STABLE, NORMAL, VOLATILE, CRISIS = (REGIMES.index(name) for name in ("stable", "normal", "volatile", "crisis"))


def drawdown(index: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fraction lost since the running peak, [T], of an index with simple returns `index`; NaN counts as 0."""
    with np.errstate(divide="ignore"):  # a return of -1 is a wealth of 0
        log_wealth = np.cumsum(np.log1p(np.nan_to_num(index)))
    return -np.expm1(log_wealth - np.maximum(np.maximum.accumulate(log_wealth), 0.0))


class Gauges(NamedTuple):
    """What a label is judged by, each [T], NaN where not yet available.

    volatility of 1/N over `VOLATILITY_DAYS` and its expanding median and upper quantile, fractions a day; loss since
    the running peak of 1/N, a fraction.
    """

    volatility: NDArray[np.float64]
    median: NDArray[np.float64]
    upper: NDArray[np.float64]
    loss: NDArray[np.float64]


def regime_gauges(index: NDArray[np.float64]) -> Gauges:
    """Gauges of [T] simple returns of 1/N, NaN before its first."""
    volatility = pd.Series(index).rolling(VOLATILITY_DAYS).std()
    past = volatility.expanding(_least_days(volatility.to_numpy()))
    return Gauges(
        volatility.to_numpy(), past.median().to_numpy(), past.quantile(ENTER_VOLATILE).to_numpy(), drawdown(index)
    )


def _least_days(volatility: NDArray[np.float64]) -> int:
    return MIN_DAYS if np.isfinite(volatility).sum() >= MIN_DAYS else SHORT_DAYS


def label_regimes(index: NDArray[np.float64]) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """Label each day by what its close has shown.

    Parameters
    ----------
    index : [T] simple returns of 1/N, NaN before its first.

    Returns
    -------
    labels : [T] int8, index into `REGIMES`, `NO_LABEL` before the first.
    warnings : one line where the history was too short for `MIN_DAYS`. This choice alone looks at the length of
        the data, never at its values.
    """
    gauges = regime_gauges(index)
    labels = _with_hysteresis(gauges)
    observed = int(np.isfinite(gauges.volatility).sum())
    if observed >= MIN_DAYS:
        return labels, ()
    return labels, (f"regimes: {observed} days of volatility, under {MIN_DAYS}; labels begin after {SHORT_DAYS}",)


def _with_hysteresis(gauges: Gauges) -> NDArray[np.int8]:
    volatility, median, upper, loss = gauges
    labels = np.full(len(volatility), NO_LABEL, dtype=np.int8)
    volatile = crisis = False
    for t in range(len(volatility)):
        crisis = loss[t] >= LEAVE_CRISIS if crisis else loss[t] > ENTER_CRISIS
        if np.isnan(upper[t]) or np.isnan(volatility[t]):
            continue
        volatile = volatility[t] >= (LEAVE_VOLATILE * median[t] if volatile else upper[t])
        calm = STABLE if volatility[t] <= median[t] else NORMAL
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
