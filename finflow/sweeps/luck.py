"""Selection bias of a sweep's best setting: deflated Sharpe ratio over every trial, and overfitting."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import TRADING_YEAR
from finflow.evaluation.deflated import DeflatedSharpe, deflated_sharpe
from finflow.evaluation.overfitting import Overfitting, backtest_overfitting
from finflow.evaluation.result import Floats
from finflow.evaluation.settings import SAME
from finflow.sweeps.table import Row, Setting


@dataclass(frozen=True)
class Luck:
    """Statistics of the selection of the first of several settings.

    Attributes
    ----------
    deflated : with every job of the sweep as a trial, those that crashed included.
    overfitting : probability that the best setting of half of the days is below the median in the other half.
    compared : settings that differ and whose active returns cover the same days as the best one's.
    days : of them.
    """

    deflated: DeflatedSharpe
    overfitting: Overfitting
    compared: int
    days: int


def luck_of(settings: Sequence[Setting], trials: int) -> Luck | None:
    """Judge the choice of `settings[0]` on validation days, on active returns; None where it is not finished.

    A setting's returns are the mean over its seeds, its folds one after the other.
    """
    best = _active(settings[0]) if settings else None
    if best is None:
        return None
    tracks = [track for track in map(_active, settings) if track is not None]
    active = np.stack(_distinct([own for dates, own in tracks if np.array_equal(dates, best[0])]), axis=1)
    year = next((r.returns.year for r in settings[0].rows if r.returns is not None), TRADING_YEAR)
    return Luck(
        deflated_sharpe(active, 0, trials, year),
        backtest_overfitting(active),
        compared=active.shape[1],
        days=len(active),
    )


def all_alike(settings: Sequence[Setting]) -> bool:
    """Whether several settings, all complete, have the same returns on every day: they are one policy."""
    tracks = [_active(setting) for setting in settings]
    first = tracks[0] if len(tracks) > 1 else None
    return first is not None and all(
        track is not None and np.array_equal(track[0], first[0]) and np.allclose(track[1], first[1], rtol=0, atol=SAME)
        for track in tracks
    )


def _distinct(tracks: Sequence[Floats]) -> list[Floats]:
    """Series that are not the same as an earlier one."""
    found: list[Floats] = []
    for track in tracks:
        if not any(np.allclose(track, other, rtol=0.0, atol=SAME) for other in found):
            found.append(track)
    return found


def _active(setting: Setting) -> tuple[NDArray[np.datetime64], Floats] | None:
    """Dates and active returns of a complete setting; None where seeds of one fold do not cover the same days."""
    if not setting.complete:
        return None
    folds: dict[str, list[Row]] = {}
    for row in setting.rows:
        folds.setdefault(row.values.get("fold", ""), []).append(row)
    parts: list[tuple[NDArray[np.datetime64], Floats]] = []
    for rows in folds.values():
        returns = [row.returns for row in rows if row.returns is not None]
        if len(returns) < len(rows) or any(not np.array_equal(r.dates, returns[0].dates) for r in returns):
            return None
        parts.append((returns[0].dates, np.mean([r.policy - r.benchmark for r in returns], axis=0)))
    parts.sort(key=lambda part: part[0][0])
    return np.concatenate([dates for dates, _ in parts]), np.concatenate([active for _, active in parts])
