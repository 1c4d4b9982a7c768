"""Performance attribution: return and risk of a window by expert, by name and by sector; the parts sum to the whole.

By expert: a portfolio w is a sum of sleeves, one per expert and one for execution. Sleeves drift with their holdings;
at a decision each keeps 1 - rate of its own and expert k adds rate g_k e_k; what the desk's rules, or float32, change
goes to `execution`. Costs follow the sign of the whole trade, so that they sum as well.

By sector, active return is split into allocation and selection (Brinson & Fachler 1985). On a day with weights w of the
portfolio and b of 1/N, and returns R_ps, R_bs of their parts in sector s,
    allocation_s = (w_s - b_s) (R_bs - R_b),    selection_s = w_s (R_ps - R_bs)
sum over the sectors, cash being one of them, to the active return before cost. Days are linked by what they leave at
the end, portfolio's growth before the day and 1/N's after it (GRAP 1997): with growth a of the one and b of the other,
    prod(1 + a) - prod(1 + b) = sum_t prod_{s<t}(1 + a_s) (a_t - b_t) prod_{s>t}(1 + b_s),
so that everything sums without a residual.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from finflow.allocators.priors import equal_weights
from finflow.data.market import CASH, TRADABLE, TRADING_YEAR
from finflow.envs.ledger import book
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
    returns, rate = scenes[0].returns, scenes[0].cost_rate
    days, parts = len(track.net), len(subject.spec.experts) + 1
    earned, cost, share = (np.zeros((days, parts)) for _ in range(3))
    for t, (before, held) in enumerate(_lived(scenes)):
        sign = np.sign(track.weights[t] - track.drifted[t])[:-1]
        cost[t] = rate[t] * ((held - before)[:, :-1] @ sign)
        earned[t] = (1.0 - track.cost[t]) * (held @ returns[t])
        share[t] = held.sum(1)
    return Sleeves((*subject.spec.experts, EXECUTION), earned, cost, share)


def weights_by_expert(trace: DecisionTrace, place: int) -> Floats:
    """Weights after the decision at `place` by who asked for them, [K + 1, n], execution last; they sum to it."""
    return next(held for t, (_, held) in enumerate(_lived([trace])) if t == place)


def _lived(traces: Sequence[DecisionTrace]) -> Generator[tuple[Floats, Floats]]:
    """Sleeves [K + 1, n] before and after each decision."""
    first = traces[0]
    track, returns = first.track, first.returns
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


def name_parts(scenes: Sequence[DecisionTrace]) -> tuple[NamePart, ...]:
    """Parts by name, cash last, of one window or of several end to end."""
    daily = [_by_name(scene) for scene in scenes]
    drift, earned, cost = (np.concatenate(part) for part in zip(*daily, strict=True))
    net = np.concatenate([scene.track.net for scene in scenes])
    weights = np.concatenate([scene.track.weights for scene in scenes])
    nav = np.concatenate([[1.0], np.cumprod(1.0 + net)[:-1]])
    risk = covariance_parts(earned - cost, net, scenes[0].track.year)
    columns = (nav @ drift, nav @ (earned - drift), nav @ cost, risk, weights.mean(0))
    rows = zip(scenes[0].subject.assets, *(column.tolist() for column in columns), strict=True)
    return tuple(NamePart(*row) for row in rows)


def _by_name(scene: DecisionTrace) -> tuple[Floats, Floats, Floats]:
    """[R, n] each: earned by the first portfolio left alone, earned by the weights held, cost of trades."""
    track, returns = scene.track, scene.returns
    left = np.empty_like(track.weights)
    left[0] = track.weights[0]
    for t in range(1, len(left)):
        left[t] = book(left[t - 1], left[t - 1], returns[t - 1], 0.0).drifted
    kept = (1.0 - track.cost)[:, None] * returns  # the day's cost is paid before its return is earned
    return kept * left, kept * track.weights, scene.costs


@dataclass(frozen=True)
class SectorPart:
    """One sector of a window: mean weights of portfolio and 1/N, and its parts of the active return."""

    sector: str
    weight: float
    benchmark: float
    allocation: float
    selection: float

    @property
    def total(self) -> float:
        """Part of the active return before cost."""
        return self.allocation + self.selection


@dataclass(frozen=True)
class ActiveParts:
    """Net return minus that of 1/N before cost: the sectors' parts minus `cost`; the last sector is cash."""

    sectors: tuple[SectorPart, ...]
    cost: float
    active: float


def active_parts(scenes: Sequence[DecisionTrace], sectors: Sequence[str]) -> ActiveParts:
    """Parts of one window, or of several end to end; `sectors` of the n - 1 risky names.

    1/N holds the names that are tradable at each close, equally, as the benchmark does; a sector of which it holds
    none has its return, so that all of what the portfolio earns there is selection.
    """
    names = (*dict.fromkeys(sectors), CASH)
    member = np.array([[one == name for one in (*sectors, CASH)] for name in names], dtype=np.float64)  # [S, n]
    daily = [_by_sector(scene, member) for scene in scenes]
    weight, held, allocation, selection, equal = (np.concatenate(part) for part in zip(*daily, strict=True))
    net = np.concatenate([scene.track.net for scene in scenes])
    paid = np.concatenate([scene.track.cost * (1.0 + scene.track.gross) for scene in scenes])
    before = np.concatenate([[1.0], np.cumprod(1.0 + net)[:-1]])
    after = np.concatenate([np.cumprod((1.0 + equal)[::-1])[::-1][1:], [1.0]])
    link = before * after
    columns = (weight.mean(0), held.mean(0), link @ allocation, link @ selection)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    active = float(np.prod(1.0 + net) - np.prod(1.0 + equal))
    return ActiveParts(tuple(SectorPart(*row) for row in rows), float(link @ paid), active)


def _by_sector(scene: DecisionTrace, member: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Weights of portfolio and of 1/N [R, S], allocation and selection [R, S], and the return of 1/N [R]."""
    returns, weights = scene.returns, scene.track.weights
    equal = equal_weights(scene.subject.market.status[scene.rows, :-1] == TRADABLE)
    whole = (equal * returns).sum(1)
    weight, held = weights @ member.T, equal @ member.T
    theirs = np.where(held > 0, (equal * returns) @ member.T / np.where(held > 0, held, 1.0), whole[:, None])
    theirs[:, -1] = returns[:, -1]  # cash has a return of its own, held or not
    selection = (weights * returns) @ member.T - weight * theirs
    return weight, held, (weight - held) * (theirs - whole[:, None]), selection, whole
