"""What an agent learns from: complete transitions, and the coefficients that a schedule has reached."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from finflow.envs.world import State


class Batch(NamedTuple):
    """B transitions, complete.

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


@dataclass(frozen=True)
class OfflineCoefficients:
    """Phase 1: `lr_factor` multiplies the learning rates; `learn_policy` is off while only values are refitted."""

    lr_factor: float = 1.0
    learn_policy: bool = True


@dataclass(frozen=True)
class OnlineCoefficients:
    """Phase 2, as reached by the schedules.

    sigma: standard deviation of a logit whose entropy is the target; anchor: eta of KL(aim || priors);
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
