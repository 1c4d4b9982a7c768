"""What a sweep's settings are worth on validation days: which are one policy, how far each is from the reference, and
the selection bias of the best: deflated Sharpe ratio over every trial, and overfitting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finflow.evaluation.backtest import Bootstrap
from finflow.evaluation.overfitting import Overfitting, backtest_overfitting
from finflow.evaluation.selection_bias import DeflatedSharpe, deflated_sharpe
from finflow.evaluation.settings import SAME
from finflow.evaluation.sharpe_test import sharpe_difference
from finflow.evaluation.study import Middle
from finflow.sweeps.table import Returns, Row, Setting


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


def luck_of(settings: Sequence[Setting], same: Sequence[int], trials: int) -> Luck | None:
    """Judge the choice of `settings[0]` on validation days, on active returns; None where it is not finished.

    same : of each setting, see `same_as`: those that are one policy count once.
    """
    tracks = [track_of(setting) for at, setting in enumerate(settings) if same[at] == at]
    best = tracks[0] if tracks else None
    if best is None:
        return None
    alike = [track for track in tracks if track is not None and np.array_equal(track.dates, best.dates)]
    active = np.stack([track.policy - track.benchmark for track in alike], axis=1)
    return Luck(
        deflated_sharpe(active, 0, trials, best.year),
        backtest_overfitting(active),
        compared=active.shape[1],
        days=len(active),
    )


def same_as(settings: Sequence[Setting]) -> tuple[int, ...]:
    """For each setting the place of the first one with the same returns on every day: the two are one policy."""
    tracks, found = [track_of(setting) for setting in settings], list[int]()
    for at, track in enumerate(tracks):
        found.append(next((other for other in range(at) if _alike(tracks[other], track)), at))
    return tuple(found)


def _alike(one: Returns | None, other: Returns | None) -> bool:
    if one is None or other is None or not np.array_equal(one.dates, other.dates):
        return False
    return np.allclose(one.policy - one.benchmark, other.policy - other.benchmark, rtol=0.0, atol=SAME)


def minus_reference(settings: Sequence[Setting], reference: Setting, bootstrap: Bootstrap) -> list[Middle | None]:
    """Sharpe ratio of each setting's returns minus that of the reference's on the same days, with its 95 % interval.

    None of the reference itself, where one of the two is not finished or they have other days, and where undefined.
    """
    first, found = track_of(reference), list[Middle | None]()
    for setting in settings:
        own = None if setting is reference else track_of(setting)
        if own is None or first is None or not np.array_equal(own.dates, first.dates):
            found.append(None)
            continue
        test = sharpe_difference(
            own.policy, first.policy, samples=bootstrap.samples, block_days=bootstrap.block_days,
            rng=bootstrap.rng("sweep/reference"), year=own.year,
        )  # fmt: skip
        found.append(None if math.isnan(test.difference) else (test.difference, test.low, test.high))
    return found


def track_of(setting: Setting) -> Returns | None:
    """Returns of a complete setting, the mean over its seeds, its folds one after the other.

    None where seeds of one fold do not cover the same days.
    """
    if not setting.complete:
        return None
    folds: dict[str, list[Row]] = {}
    for row in setting.rows:
        folds.setdefault(row.values.get("fold", ""), []).append(row)
    parts: list[Returns] = []
    for rows in folds.values():
        returns = [row.returns for row in rows if row.returns is not None]
        first = returns[0] if returns else None
        if first is None or len(returns) < len(rows) or any(not np.array_equal(r.dates, first.dates) for r in returns):
            return None
        policy, benchmark = (np.mean([getattr(r, name) for r in returns], axis=0) for name in ("policy", "benchmark"))
        parts.append(replace(first, policy=policy, benchmark=benchmark))
    parts.sort(key=lambda part: part.dates[0])
    dates, policy, benchmark = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("dates", "policy", "benchmark")
    )
    return Returns(dates, policy, benchmark, parts[0].year)
