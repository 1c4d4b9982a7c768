"""Known crises, as far as a window holds them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import SPREAD, Calendar
from finflow.evaluation.drawdowns import underwater
from finflow.evaluation.result import Stress, Track

CRISES = (
    ("dot-com", "2000-03-24", "2002-10-09"),
    ("financial crisis", "2007-10-09", "2009-03-09"),
    ("pandemic", "2020-02-19", "2020-04-30"),
    ("inflation", "2022-01-03", "2022-10-12"),
)
"""Peak to trough of the S&P 500; the pandemic's window includes the first weeks of the recovery."""
SHORTEST = 21
"""Trading days of a crisis that a window must hold, and no fewer than four rows."""


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
