"""Direct reinforcement (Moody & Saffell 2001): the policy alone, by value gradients along known paths, no critic."""

import torch
from torch import Tensor

from finflow.agents.base import Batch, Descent, OfflineCoefficients, Stateful, own_stream, walk
from finflow.envs.simulator import World
from finflow.nn.networks import Networks
from finflow.schema.sections import DirectConfig


class Direct(Stateful):
    """Learner without a critic, `generator` drawing the noise on features; its networks' critic stays untrained."""

    STATE = ("networks", "optimiser", "descent", "generator")

    def __init__(self, networks: Networks, config: DirectConfig, world: World, generator: torch.Generator) -> None:
        self.networks, self.config, self.world, self.generator = networks, config, world, own_stream(generator)
        self.optimiser = torch.optim.Adam(networks.actor.parameters(), lr=config.actor_lr, fused=True)
        self.descent = Descent(networks)
        self.reached: tuple[Tensor, Tensor] | None = None

    def update(self, batch: Batch, coefficients: OfflineCoefficients) -> dict[str, Tensor]:
        """One step along the batch's paths; returns detached scalars."""
        config, networks = self.config, self.networks
        self.optimiser.param_groups[0]["lr"] = config.actor_lr * coefficients.lr_factor
        loss, metrics = self.descent.forward(self._loss, batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.descent.backward(loss)
        norm = self.descent.clip(self.optimiser, [networks.actor.parameters()], config.grad_clip)
        metrics["actor_grad_norm"] = norm[0]
        self.descent.step(self.optimiser)
        return {name: value.detach() for name, value in metrics.items()}

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean reward a day, plus eta KL(aim || e)."""
        assert batch.paths is not None
        config = self.config
        gone = walk(self.networks.actor, self.world, batch.paths, config.network.state_noise, self.generator)
        self.reached = gone.reached
        policy = -gone.rewards.mean()
        rate = gone.last.rate.mean()
        metrics = {"policy_loss": policy, "anchor_kl": gone.anchor, "rate": rate, "path_reward": gone.rewards.mean()}
        return policy + config.prior_kl_coef * gone.anchor, metrics
