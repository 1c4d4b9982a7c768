"""Return and risk of a window by name: the first portfolio left alone, all trades since, and their cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finflow.envs.ledger import book
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.sleeves import covariance_parts


@dataclass(frozen=True)
class NamePart:
    """One name's part of a window, fractions of the NAV at the start; over all names they sum to the net return.

    drift : had the first portfolio been left alone; trading : what the weights that trades changed since earned, or
    lost; cost : of its own trades; risk : part of the volatility a year; weight : mean.
    """

    name: str
    drift: float
    trading: float
    cost: float
    risk: float
    weight: float

    @property
    def total(self) -> float:
        """Return after cost."""
        return self.drift + self.trading - self.cost


def performance(scenes: Sequence[DecisionTrace]) -> tuple[NamePart, ...]:
    """Parts by name, cash last, of one window or of several end to end."""
    daily = [_daily(scene) for scene in scenes]
    drift, earned, cost = (np.concatenate(part) for part in zip(*daily, strict=True))
    net = np.concatenate([scene.track.net for scene in scenes])
    weights = np.concatenate([scene.track.weights for scene in scenes])
    nav = np.concatenate([[1.0], np.cumprod(1.0 + net)[:-1]])
    risk = covariance_parts(earned - cost, net, scenes[0].track.year)
    columns = (nav @ drift, nav @ (earned - drift), nav @ cost, risk, weights.mean(0))
    rows = zip(scenes[0].subject.assets, *(column.tolist() for column in columns), strict=True)
    return tuple(NamePart(*row) for row in rows)


def _daily(scene: DecisionTrace) -> tuple[Floats, Floats, Floats]:
    """[R, n] each: earned by the first portfolio left alone, earned by the weights held, cost of trades."""
    track = scene.track
    returns = scene.subject.market.returns[scene.rows + 1]
    left = np.empty_like(track.weights)
    left[0] = track.weights[0]
    for t in range(1, len(left)):
        left[t] = book(left[t - 1], left[t - 1], returns[t - 1], 0.0).drifted
    charge = np.divide(track.cost, track.turnover, out=np.zeros(len(left)), where=track.turnover > 0)
    kept = (1.0 - track.cost)[:, None] * returns  # the day's cost is paid before its return is earned
    cost = charge[:, None] * np.abs(track.weights - track.drifted)
    cost[:, -1] = 0.0
    return kept * left, kept * track.weights, cost
