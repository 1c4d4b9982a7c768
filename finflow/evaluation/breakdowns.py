"""A track in parts: by market regime, in known crises, by calendar year and month.

The regime of a day is the causal label at the close at which its weights were decided.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import NO_LABEL, REGIMES, SPREAD, Calendar, Market, Window
from finflow.evaluation.metrics import measure, underwater
from finflow.evaluation.result import Floats, Metrics, Stress, Track

CRISES = (
    ("dot-com", "2000-03-24", "2002-10-09"),
    ("financial crisis", "2007-10-09", "2009-03-09"),
    ("pandemic", "2020-02-19", "2020-04-30"),
    ("inflation", "2022-01-03", "2022-10-12"),
)
"""Peak to trough of the S&P 500; the pandemic's window includes the first weeks of the recovery."""
SHORTEST = 21
"""Trading days of a crisis that a window must hold, and no fewer than four rows."""
Period = Literal["Y", "M"]
Dates = NDArray[np.datetime64]


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


def stress_table(tracks: Mapping[str, Track]) -> tuple[Stress, ...]:
    """Net return and deepest drawdown of every strategy within each crisis; all tracks have the same dates."""
    first_track = next(iter(tracks.values()))
    dates, year = first_track.dates, first_track.year
    found: list[Stress] = []
    for name, first, last in CRISES:
        days = (dates >= np.datetime64(first, "D")) & (dates <= np.datetime64(last, "D"))
        if days.sum() < Calendar(year=year).rows(SHORTEST, SPREAD):
            continue
        held = dates[days]
        found.append(Stress(name, str(held[0]), str(held[-1]), {k: _fall(t, days) for k, t in tracks.items()}))
    return tuple(found)


def _fall(track: Track, days: NDArray[np.bool_]) -> tuple[float, float]:
    nav = np.cumprod(1.0 + track.net[days], dtype=np.float64)
    return float(nav[-1] - 1.0), abs(float(underwater(nav).min()))


def period_returns(dates: Dates, net: Floats, period: Period) -> tuple[Dates, Floats]:
    """Years or months [P] that hold rows, and what their net returns [R] compound to [P].

    A row belongs to the period of its date: the return of a week that ends in February is February's. The first and
    the last period may be cut by the window.
    """
    growth, periods = _grouped(dates, 1.0 + net, period, np.multiply)
    return periods, growth - 1.0


def period_sums(dates: Dates, values: Floats, period: Period) -> tuple[Dates, Floats]:
    """Years or months [P] that hold rows, and the sum of [R] values in each."""
    total, periods = _grouped(dates, values, period, np.add)
    return periods, total


def _grouped(dates: Dates, values: Floats, period: Period, join: Any) -> tuple[Floats, Dates]:
    periods, first = np.unique(dates.astype(f"datetime64[{period}]"), return_index=True)
    return join.reduceat(values, first), periods
