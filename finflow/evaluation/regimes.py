"""Metrics by market regime: days are grouped by the causal label at the close their weights were decided."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import NO_LABEL, REGIMES, Market, Window
from finflow.evaluation.metrics import measure
from finflow.evaluation.result import Metrics, Track


def decision_regimes(market: Market, window: Window) -> NDArray[np.int8]:
    """[R] label known at the decision behind each return; days before the first label count as `normal`."""
    labels = market.regime[window.start - 1 : window.stop - 1]
    return np.where(labels == NO_LABEL, REGIMES.index("normal"), labels).astype(np.int8)


def by_regime(
    labels: NDArray[np.int8], tracks: Mapping[str, Track]
) -> tuple[dict[str, dict[str, Metrics]], dict[str, int]]:
    """Metrics of each strategy on the days of each regime, and how many days that are.

    The days of a regime are strung together, so its drawdown and its length run over that string. Regimes
    without a day are left out.
    """
    tables: dict[str, dict[str, Metrics]] = {}
    days: dict[str, int] = {}
    for index, regime in enumerate(REGIMES):
        chosen = labels == index
        if not chosen.any():
            continue
        days[regime] = int(chosen.sum())
        tables[regime] = {
            name: measure(t.net[chosen], t.turnover[chosen], t.weights[chosen], opening=bool(chosen[0]), year=t.year)
            for name, t in tracks.items()
        }
    return tables, days
