"""The deepest drawdowns of a track, each from its first row under the peak to the row that regains it."""

from dataclasses import dataclass

import numpy as np

from finflow.evaluation.result import Floats, Track

ROUNDING = 1e-12
"""A NAV under its peak by less than this stands at it."""


@dataclass(frozen=True)
class Drawdown:
    """One fall from a peak; the start at 1 counts as a peak.

    first, trough, last : row under the peak for the first time, at the deepest, and for the last time.
    depth : 1 - NAV / peak at the trough, positive. recovered : whether the row after `last` regains the peak.
    """

    first: int
    trough: int
    last: int
    depth: float
    recovered: bool

    @property
    def length(self) -> int:
        """Rows from the peak to its recovery, or to the end of the track."""
        return self.last - self.first + 1 + self.recovered


def deepest_drawdowns(track: Track, count: int = 5) -> list[Drawdown]:
    """The `count` deepest drawdowns, the deepest first; fewer where there are not so many."""
    under = underwater(track.nav)
    edges = np.diff(np.r_[0, (under < -ROUNDING).astype(np.int8), 0])
    starts, stops = np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist()
    found = [
        Drawdown(start, start + int(np.argmin(under[start:stop])), stop - 1, -float(under[start:stop].min()),
                 stop < len(under))
        for start, stop in zip(starts, stops, strict=True)
    ]  # fmt: skip
    return sorted(found, key=lambda one: -one.depth)[:count]


def underwater(nav: Floats) -> Floats:
    """[R] NAV / highest NAV so far - 1, at most 0; the start at 1 counts."""
    return nav / np.maximum(np.maximum.accumulate(nav), 1.0) - 1.0
