"""States, decisions and earnings of a policy on every day of one window, the basis of all explanations."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.learner import GreedyPolicy
from finflow.data.market import Fold, Market, Window
from finflow.envs.simulator import State, World
from finflow.errors import StorageError
from finflow.evaluation.result import Floats, Track
from finflow.nn.actor import Actor, ActorEnsemble, Decision
from finflow.nn.networks import Critic, ObservationSpec

REPRODUCED = 1e-4
"""Largest difference between a stored weight and the same decision taken again; float32 leaves about 1e-7."""


@dataclass(frozen=True)
class Subject:
    """One trained policy on its market.

    critics : of the runs that the policy averages, mostly one. gamma : discount of their return.
    """

    market: Market
    fold: Fold
    world: World
    spec: ObservationSpec
    policy: GreedyPolicy
    critics: tuple[Critic, ...]
    gamma: float

    @property
    def actor(self) -> Actor | ActorEnsemble:
        """The policy's network, or several averaged."""
        return self.policy.actor

    @cached_property
    def average_market(self) -> Tensor:
        """Mean scaled market features over the decisions of the train window, [M]."""
        return self.world.market[self._train].mean(0)

    @cached_property
    def average_priors(self) -> Tensor:
        """Mean prior portfolios over the decisions of the train window, [K, n]."""
        return self.world.priors[self._train].mean(0)

    @property
    def _train(self) -> slice:
        return slice(self.fold.train.start - 1, self.fold.train.stop - 1)

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the n assets, cash last."""
        return self.market.assets


@dataclass(frozen=True)
class DecisionTrace:
    """One window of a policy; row r is the decision behind the return of `track.dates[r]`.

    Attributes
    ----------
    rows : [R] market rows of the decisions.
    state, decision : R states and the actor's output in them.
    rate : [R] part of the way to the aim; 1 where the window was entered from cash.
    decided : [R] bool, whether the portfolio could be changed.
    known : row after the last whose return is known; a decision at the row before it has no outcome yet.
    """

    subject: Subject
    window: Window
    track: Track
    rows: NDArray[np.int64]
    state: State
    decision: Decision
    rate: Floats
    decided: NDArray[np.bool_]
    known: int

    @property
    def gate(self) -> Floats:
        """Share of each expert in the aim, [R, K]."""
        return _array(self.decision.gate)

    @property
    def experts(self) -> Floats:
        """Experts' portfolios, [R, K, n]."""
        return _array(self.decision.experts)

    @property
    def aim(self) -> Floats:
        """Portfolio that the gate mixes, [R, n]."""
        return _array(self.decision.aim)

    @property
    def target(self) -> Floats:
        """Target weights before the desk's rules, [R, n]."""
        entered = self.rate[:, None] == 1.0
        return np.where(entered, self.aim, _array(self.decision.mean))

    @property
    def returns(self) -> Floats:
        """[R, n] returns of the day after each decision."""
        return self.subject.market.returns[self.rows + 1]

    @property
    def cost_rate(self) -> Floats:
        """[R] cost of a traded unit of notional; 0 where nothing was traded."""
        track = self.track
        return np.divide(track.cost, track.turnover, out=np.zeros(len(track.cost)), where=track.turnover > 0)

    @property
    def costs(self) -> Floats:
        """[R, n] cost of each name's trade; cash pays and is not traded."""
        costs = self.cost_rate[:, None] * np.abs(self.track.weights - self.track.drifted)
        costs[:, -1] = 0.0
        return costs

    def state_at(self, place: int) -> State:
        """State of one decision, B = 1."""
        return State(*(part[place : place + 1] for part in self.state))


def make_scene(
    subject: Subject, window: Window, track: Track, *, check: bool = True, known: int | None = None
) -> DecisionTrace:
    """Take every decision of `track` again.

    Raises StorageError if the track is not this policy's in this window.

    Parameters
    ----------
    check : whether the track must be this policy's own; an average of several runs is nobody's.
    known : row after the last whose return is known; by default the end of the window.
    """
    market, rows = subject.market, np.asarray(window.decisions, dtype=np.int64)
    if not np.array_equal(track.dates, market.dates[rows + 1]):
        raise StorageError(f"weights.csv: its days are not those of the {subject.fold.name} window; evaluate again")
    decided = market.decision[rows].copy()
    decided[0] = True
    trace = trace_of(subject, window, track, track.drawdown_before, decided, window.stop if known is None else known)
    # On the first day too the ledger trades; the market's mask differs there.
    again = market.decision[rows]
    if check and again.any():
        asked = trace.decision.mean.new_tensor(trace.target)
        executed = subject.world.execute(asked, trace.state).cpu().numpy()
        distance = np.abs(executed - track.weights).max(1)[again]
        if distance.max() > REPRODUCED:
            day = market.dates[rows[again][int(distance.argmax())]]
            raise StorageError(
                f"weights.csv: the decision of {day} comes out {distance.max():.1e} from the stored one; evaluate again"
            )
    return trace


def trace_of(
    subject: Subject, window: Window, track: Track, drawdown: Floats, decided: NDArray[np.bool_], known: int
) -> DecisionTrace:
    """The trace of a track whose ln(peak / NAV) before each decision was `drawdown` [R]."""
    policy, rows = subject.policy, np.asarray(window.decisions, dtype=np.int64)
    state = policy.world.observe(rows, track.drifted, drawdown)
    decision = policy.decide(rows, track.drifted, drawdown)
    entered = np.array([int(row) in policy.entries for row in rows]) & (track.drifted[:, -1] >= 1.0)
    rate = np.where(entered, 1.0, _array(decision.rate))
    return DecisionTrace(subject, window, track, rows, state, decision, rate, decided, known)


def _array(part: object) -> Floats:
    return part.double().cpu().numpy()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
