"""Causal market regimes: volatility of 1/N relative to its past, and crises by drawdown, without smoothing."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.calendar import BUSINESS, SPREAD, Calendar
from finflow.data.market import NO_LABEL, REGIMES
from finflow.errors import ConfigError
from finflow.schema.env import Regimes

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
