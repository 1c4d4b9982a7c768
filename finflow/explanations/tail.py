"""Tail loss by name: marginal CVaR on the history known at the decision."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import Market
from finflow.evaluation.result import Floats

DAYS = 756
"""Trading days of history."""
LEVEL = 0.05


@dataclass(frozen=True)
class Tail:
    """CVaR 95 % a day of the executed weights; positive is a loss.

    cvar, cvar_before : after and before the trade. marginal [n] : loss of each name on those worst days, which is
    the derivative of CVaR by its weight. parts [n] : weight times marginal; they sum to `cvar`. days : of history.
    """

    cvar: float
    cvar_before: float
    marginal: tuple[float, ...]
    parts: tuple[float, ...]
    days: int


def tail(market: Market, row: int, weights: Floats, before: Floats) -> Tail:
    """Tail of `weights` [n] at the close of `row`, had they been held over the last `DAYS`.

    A day on which a name had no price counts as 0 for it.
    """
    history = market.returns[max(1, row + 1 - market.calendar.rows(DAYS)) : row + 1]
    worst = _worst(history @ weights)
    marginal = -history[worst].mean(0)
    earlier = history @ before
    return Tail(
        cvar=float(marginal @ weights),
        cvar_before=float(-earlier[_worst(earlier)].mean()),
        marginal=tuple(marginal.tolist()),
        parts=tuple((marginal * weights).tolist()),
        days=len(history),
    )


def _worst(returns: Floats) -> NDArray[np.intp]:
    """Places of the worst 5 % of days, their number rounded up, as `metrics.cvar` counts them."""
    count = math.ceil(round(LEVEL * len(returns), 9))
    return np.argsort(returns, kind="stable")[:count]
