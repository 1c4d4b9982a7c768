"""Return and risk of a portfolio by the expert that asked for it; the parts sum to the whole exactly.

A portfolio w is a sum of sleeves, one per expert and one for execution. Sleeves
drift with their holdings; at a decision each keeps 1 - rate of its own and expert k adds rate g_k e_k; what the desk's
rules, or float32, change goes to `execution`. Costs follow the sign of the whole trade, so that they sum as well.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from finflow.data.market import TRADING_YEAR
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace

EXECUTION = "execution"


@dataclass(frozen=True)
class Sleeves:
    """Parts of each day, [R, K + 1], execution last: earned (before cost) and cost, fractions of that day's NAV.

    earned minus cost sums to the day's net return. share [R, K + 1] : part of NAV after the decision.
    """

    names: tuple[str, ...]
    earned: Floats
    cost: Floats
    share: Floats


@dataclass(frozen=True)
class Contribution:
    """One part of a window: return after cost, its cost, fractions of the NAV at the start; risk a year.

    Returns sum to the window's net return, risks to its volatility. share : mean part of NAV.
    """

    name: str
    earned: float
    cost: float
    risk: float
    share: float

    @property
    def total(self) -> float:
        """Return after cost."""
        return self.earned - self.cost


def sleeves(scenes: Sequence[DecisionTrace]) -> Sleeves:
    """Parts of a track; several scenes of one track are runs whose targets were averaged."""
    track, subject = scenes[0].track, scenes[0].subject
    returns = subject.market.returns[scenes[0].rows + 1]
    days, parts = len(track.net), len(subject.spec.experts) + 1
    earned, cost, share = (np.zeros((days, parts)) for _ in range(3))
    charge = np.divide(track.cost, track.turnover, out=np.zeros(days), where=track.turnover > 0)
    for t, (before, held) in enumerate(_lived(scenes)):
        sign = np.sign(track.weights[t] - track.drifted[t])[:-1]
        cost[t] = charge[t] * ((held - before)[:, :-1] @ sign)
        earned[t] = (1.0 - track.cost[t]) * (held @ returns[t])
        share[t] = held.sum(1)
    return Sleeves((*subject.spec.experts, EXECUTION), earned, cost, share)


def weights_by_expert(trace: DecisionTrace, place: int) -> Floats:
    """Weights after the decision at `place` by who asked for them, [K + 1, n], execution last; they sum to it."""
    return next(held for t, (_, held) in enumerate(_lived([trace])) if t == place)


def _lived(traces: Sequence[DecisionTrace]) -> Generator[tuple[Floats, Floats]]:
    """Sleeves [K + 1, n] before and after each decision."""
    first = traces[0]
    track, returns = first.track, first.subject.market.returns[first.rows + 1]
    keep = np.mean([1.0 - trace.rate for trace in traces], axis=0)
    added = np.mean([trace.rate[:, None, None] * trace.gate[..., None] * trace.experts for trace in traces], axis=0)
    held = np.zeros((added.shape[1] + 1, added.shape[2]))
    held[-1] = track.drifted[0]
    for t in range(len(added)):
        before = held
        if first.decided[t]:
            held = keep[t] * held
            held[:-1] += added[t]
        held[-1] += track.weights[t] - held.sum(0)
        yield before, held
        held = held * (1.0 + returns[t]) / (1.0 + track.gross[t])


def contributions(parts: Sleeves, net: Floats, year: int = TRADING_YEAR) -> tuple[Contribution, ...]:
    """Parts of a whole window with net returns [R]; several windows end to end may be joined before.

    A day's part weighs with the NAV before it, so that returns add up without a residual; the risk of a part is its
    covariance with the whole over the whole's standard deviation (Euler), ddof 1, a year.
    """
    nav = np.concatenate([[1.0], np.cumprod(1.0 + net)[:-1]])
    risk = covariance_parts(parts.earned - parts.cost, net, year)
    return tuple(
        Contribution(
            name,
            float(nav @ parts.earned[:, k]),
            float(nav @ parts.cost[:, k]),
            float(risk[k]),
            float(parts.share[:, k].mean()),
        )
        for k, name in enumerate(parts.names)
    )


def covariance_parts(parts: Floats, net: Floats, year: int = TRADING_YEAR) -> Floats:
    """Risk of parts [R, P] of net returns [R], a year; sums to their volatility. 0 where there is none."""
    days = len(net)
    volatility = float(np.std(net, ddof=1)) if days > 1 else 0.0
    if volatility == 0.0:
        return np.zeros(parts.shape[1])
    return (parts - parts.mean(0)).T @ (net - net.mean()) / (days - 1) / volatility * year**0.5
