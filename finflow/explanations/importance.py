"""Importance of inputs: mean absolute integrated gradients over a window, with their spread over runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.gradients import integrated_gradients

DAYS = 24


@dataclass(frozen=True)
class Importance:
    """Shares of the inputs by name, over assets and days; each run's sum to 1.

    share : mean over runs. low, high : 95 % t-interval of that mean, cut at 0 and 1; None for a single run. days : of
    each run's window that were looked at, evenly spaced; the target is the weight of the day's largest trade.
    """

    names: tuple[str, ...]
    share: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    runs: int
    days: int


def importance(scenes: Sequence[DecisionTrace]) -> Importance:
    """Importance of each named input; one scene a run."""
    found = [_shares(scene) for scene in scenes]
    names = tuple(found[0])
    shares = np.array([[one.get(name, 0.0) for name in names] for one in found])
    middle = shares.mean(0)
    order = np.argsort(-middle, kind="stable")
    count = len(shares)
    low = high = None
    if count > 1:
        half = student.ppf(0.975, count - 1) * shares.std(0, ddof=1) / count**0.5
        low, high = (tuple(np.clip(middle + side * half, 0.0, 1.0)[order].tolist()) for side in (-1, 1))
    days = min(DAYS, *(int(scene.decided.sum()) for scene in scenes))
    return Importance(tuple(names[i] for i in order), tuple(middle[order].tolist()), low, high, count, days)


def _shares(scene: DecisionTrace) -> dict[str, float]:
    places = np.flatnonzero(scene.decided)[1:] if scene.decided.sum() > 1 else np.flatnonzero(scene.decided)
    chosen = places[np.unique(np.linspace(0, len(places) - 1, min(DAYS, len(places))).astype(np.int64))]
    total: dict[str, float] = {}
    for place in chosen.tolist():
        focus = int(np.abs(scene.target[place] - scene.track.drifted[place])[:-1].argmax())
        state, actor = scene.state_at(place), scene.subject.actor
        found = integrated_gradients(actor, scene.subject, state, lambda d, i=focus: d.mean[:, i], tolerance=0.01)
        size = float(np.abs(found.shares).sum()) or 1.0
        for one, share in zip(found.inputs, found.shares.tolist(), strict=True):
            total[one.name] = total.get(one.name, 0.0) + abs(share) / size / len(chosen)
    return total
