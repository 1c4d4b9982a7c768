"""Active return by sector, split into allocation and selection (Brinson & Fachler 1985).

On a day with weights w of the portfolio and b of 1/N, and returns R_ps, R_bs of their parts in sector s,
    allocation_s = (w_s - b_s) (R_bs - R_b),    selection_s = w_s (R_ps - R_bs)
sum over the sectors, cash being one of them, to the active return before cost. Days are linked by what they leave at
the end, portfolio's growth before the day and 1/N's after it (GRAP 1997): with growth a of the one and b of the other,
    prod(1 + a) - prod(1 + b) = sum_t prod_{s<t}(1 + a_s) (a_t - b_t) prod_{s>t}(1 + b_s),
so that everything sums without a residual.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finflow.allocators.signals import equal_weights
from finflow.data.market import CASH, TRADABLE
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace


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
    daily = [_daily(scene, member) for scene in scenes]
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


def _daily(scene: DecisionTrace, member: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Weights of portfolio and of 1/N [R, S], allocation and selection [R, S], and the return of 1/N [R]."""
    market = scene.subject.market
    returns, weights = market.returns[scene.rows + 1], scene.track.weights
    equal = equal_weights(market.status[scene.rows, :-1] == TRADABLE)
    whole = (equal * returns).sum(1)
    weight, held = weights @ member.T, equal @ member.T
    theirs = np.where(held > 0, (equal * returns) @ member.T / np.where(held > 0, held, 1.0), whole[:, None])
    theirs[:, -1] = returns[:, -1]  # cash has a return of its own, held or not
    selection = (weights * returns) @ member.T - weight * theirs
    return weight, held, (weight - held) * (theirs - whole[:, None]), selection, whole
