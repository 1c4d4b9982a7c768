"""The interface between training loops and learners, and the learner that each algorithm's settings build."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.agents.direct import Direct
from finflow.agents.iql import IQL
from finflow.agents.td3bc import TD3BC
from finflow.envs.simulator import State, World
from finflow.nn.layers import Decision
from finflow.nn.networks import Networks
from finflow.plugins import added
from finflow.schema.algo import BCellConfig, DirectConfig, IQLConfig, OfflineAlgorithm, OnlineAlgorithm, TD3BCConfig


class Learner(Protocol):
    """Networks with the complete state of their training.

    reached : drifted weights and drawdowns at the end of the last update's paths; None where it had none.
    """

    reached: tuple[Tensor, Tensor] | None

    @property
    def networks(self) -> Networks:
        """All networks, targets included."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        ...


class OfflineLearner(Learner, Protocol):
    """Phase 1."""

    @property
    def config(self) -> OfflineAlgorithm:
        """Its settings."""
        ...

    def update(self, batch: Batch, coefficients: OfflineCoefficients) -> dict[str, Tensor]:
        """One update; returns detached scalars, `v_loss`, `q_loss` and `policy_loss` among them."""
        ...


class OnlineLearner(Learner, Protocol):
    """Phase 2.

    scales : of CQL, None until measured; acting : generator of what is done in episodes.
    """

    scales: Scales | None
    acting: torch.Generator

    @property
    def config(self) -> OnlineAlgorithm:
        """Its settings."""
        ...

    @property
    def cql_alpha(self) -> float:
        """Weight of CQL; 0 is none."""
        ...

    def act(self, state: State, generator: torch.Generator | None = None) -> Decision:
        """Decision in B states; with a generator its mean is one draw of the policy instead."""
        ...

    def update(self, batch: Batch, coefficients: OnlineCoefficients) -> dict[str, Tensor]:
        """One update; returns detached scalars, `critic_loss` and `actor_loss` among them."""
        ...

    def hand_over(self) -> None:
        """Keep a frozen copy of phase 1's critic, the lower bound of CQL."""
        ...

    def refit(self, batch: Batch) -> dict[str, Tensor]:
        """Fit critic and value to a changed reward, the actor frozen; returns detached scalars."""
        ...


OFFLINE: Mapping[type[OfflineAlgorithm], Callable[[Networks, Any, World, torch.Generator], OfflineLearner]] = {
    IQLConfig: IQL,
    TD3BCConfig: TD3BC,
    DirectConfig: Direct,
}
ONLINE: Mapping[type[OnlineAlgorithm], Callable[[Networks, Any, World, torch.Generator], OnlineLearner]] = {
    BCellConfig: BCell,
}
"""Settings of an algorithm -> what builds its learner from networks, settings, world and generator."""


def _maker(own: Mapping[Any, Callable[..., Any]], config: OfflineAlgorithm | OnlineAlgorithm) -> Callable[..., Any]:
    return {**own, **dict(added("algorithms").values())}[type(config)]


def offline_learner(
    networks: Networks, config: OfflineAlgorithm, world: World, generator: torch.Generator
) -> OfflineLearner:
    """The learner of phase 1 that `config` describes."""
    return _maker(OFFLINE, config)(networks, config, world, generator)


def online_learner(
    networks: Networks, config: OnlineAlgorithm, world: World, generator: torch.Generator
) -> OnlineLearner:
    """The learner of phase 2 that `config` describes."""
    return _maker(ONLINE, config)(networks, config, world, generator)
