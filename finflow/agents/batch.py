"""Inputs of an update: complete transitions, paths, and the current values of the schedules."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from finflow.envs.world import State


class Paths(NamedTuple):
    """Positions of walkers and the days ahead of them: W walkers for each of A actors, one actor after the other.

    rows [A W, H + 1] decision rows, the last that of the state after H days; drifted [A W, n] and drawdown [A W] at
    the first; all_open: whether every name is tradable, and a decision taken, on all of these days.
    """

    rows: Tensor
    drifted: Tensor
    drawdown: Tensor
    all_open: bool


class Batch(NamedTuple):
    """B complete transitions, and the paths of value gradients where the learner has a horizon.

    state, next_state; weights [B, n] executed; reward [B]; discount [B] gamma, or 0 after ruin (a time limit
    bootstraps); next_weights [B, n] the behaviour's next executed weights and has_next [B] bool, where known.
    """

    state: State
    weights: Tensor
    reward: Tensor
    discount: Tensor
    next_state: State
    next_weights: Tensor
    has_next: Tensor
    paths: Paths | None = None


@dataclass(frozen=True)
class OfflineCoefficients:
    """Phase 1: `lr_factor` multiplies the learning rates; `learn_policy` is off while only values are refitted."""

    lr_factor: float = 1.0
    learn_policy: bool = True


@dataclass(frozen=True)
class OnlineCoefficients:
    """Phase 2, as reached by the schedules.

    sigma: standard deviation of a logit whose entropy is the target; anchor: eta of KL(aim || e);
    temperature and balance of the gate; cql: factor on the CQL weight; learn_policy is off at the hand-over;
    lr_factor multiplies the learning rates.
    """

    sigma: float
    anchor: float
    temperature: float
    balance: float
    cql: float
    learn_policy: bool = True
    lr_factor: float = 1.0
