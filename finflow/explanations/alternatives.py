"""Alternatives to a decision: each expert alone, 1/N, holding."""

from dataclasses import dataclass

import numpy as np

from finflow.allocators.baselines import EQUAL
from finflow.allocators.signals import equal_weights
from finflow.data.market import TRADABLE
from finflow.envs.ledger import execute, traded
from finflow.evaluation.backtest import POLICY
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.value_distribution import many_atoms

HOLD = "hold"


@dataclass(frozen=True)
class Alternative:
    """One way to act in the same state, through the same ledger.

    weights [n] executed; turnover, cost of getting there, fractions; distance : half L1 distance from the actual ones;
    advantage : critic's mean minus that of the actual weights, units of the reward.
    """

    name: str
    weights: tuple[float, ...]
    turnover: float
    cost: float
    distance: float
    advantage: float


def alternatives(scene: DecisionTrace, place: int) -> tuple[Alternative, ...]:
    """What was done, then each expert alone at the same trading rate, 1/N at once, and hold."""
    subject, market, row = scene.subject, scene.subject.market, int(scene.rows[place])
    held, rate = scene.track.drifted[place], scene.rate[place]
    targets = {
        **{name: held + rate * (e - held) for name, e in zip(subject.spec.experts, scene.experts[place], strict=True)},
        EQUAL: equal_weights(market.status[row, :-1] == TRADABLE),
    }
    accounting = subject.world.accounting
    wanted = np.stack(list(targets.values()))
    many = (len(wanted), market.n)
    acted = np.broadcast_to(scene.decided[place], many[:1])
    status, before = np.broadcast_to(market.status[row], many), np.broadcast_to(held, many)
    executed = execute(wanted, before, status, acted, accounting)
    idle = execute(held[None], held[None], market.status[row][None], np.array([False]), accounting)
    everything = np.concatenate([scene.track.weights[place][None], executed, idle])
    value = many_atoms(subject, scene.state_at(place), everything[None])[0].mean(-1)
    turnover = traded(everything, np.broadcast_to(held, everything.shape))
    names = (POLICY, *targets, HOLD)
    return tuple(
        Alternative(
            name,
            tuple(everything[i].tolist()),
            float(turnover[i]),
            float(turnover[i] * accounting.cost_rate),
            float(0.5 * np.abs(everything[i] - everything[0]).sum()),
            float(value[i] - value[0]),
        )
        for i, name in enumerate(names)
    )


def held_return(scene: DecisionTrace, place: int, weights: Floats, days: int) -> float:
    """Return of weights [n] left alone for `days` days after the decision, their cost not counted."""
    following = scene.subject.market.returns[int(scene.rows[place]) + 1 :][:days]
    return float(weights @ np.prod(1.0 + following, axis=0) - 1.0)
