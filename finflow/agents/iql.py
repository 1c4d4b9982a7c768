"""Phase 1: implicit Q-learning (Kostrikov et al. 2021) with quantile critics, on portfolios."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from finflow.agents.batch import Batch, OfflineCoefficients
from finflow.agents.descent import Descent
from finflow.agents.team import of_all
from finflow.losses.awr import advantage_weight, effective_sample_share, weighted_cross_entropy
from finflow.losses.expectile import expectile_loss
from finflow.losses.quantile import lower_mean, quantile_huber_loss
from finflow.nn.networks import Networks
from finflow.schema.algo import IQL as IQLConfig


class ImplicitLosses(NamedTuple):
    """v_loss and q_loss (scalars with gradient); advantage, value and q of the data [B], no gradient."""

    v_loss: Tensor
    q_loss: Tensor
    advantage: Tensor
    value: Tensor
    q: Tensor


def implicit_losses(networks: Networks, batch: Batch, expectile: float) -> ImplicitLosses:
    """Value and critic losses of IQL; the critic never asks for an action outside the data.

    V regresses the expectile of min_k q_target_k. The critic's target is
    y_j = r + gamma [V(s') + z_j(s', a') - q(s', a')]: its mean is IQL's r + gamma V(s'), its spread comes from the
    behaviour's own next action a', from the target critic of lower mean (none known: no spread).
    """
    critic, target = networks.critic, networks.target
    embedding = critic.embed(batch.state)
    value = critic.value(embedding)
    atoms = critic.atoms(embedding, batch.weights[:, None]).squeeze(1)
    with torch.no_grad():
        q = target.atoms(target.embed(batch.state), batch.weights[:, None]).squeeze(1).mean(-1).amin(-1)
        next_value = critic.value_of(batch.next_state)
        shape: Tensor | float = 0.0
        if atoms.shape[-1] > 1:  # one atom has no spread
            next_target = target.embed(batch.next_state)
            shape = lower_mean(target.atoms(next_target, batch.next_weights[:, None]).squeeze(1))
            shape = (shape - shape.mean(-1, keepdim=True)) * batch.has_next[:, None]
        y = batch.reward[:, None] + batch.discount[:, None] * (next_value[:, None] + shape)
    q_loss = quantile_huber_loss(atoms, y[:, None].expand_as(atoms))
    return ImplicitLosses(expectile_loss(q - value, expectile), q_loss, q - value.detach(), value.detach(), q)


class IQL:
    """Implicit Q-learning: `act`, `update`, state; knows neither buffer nor market nor the step count."""

    def __init__(self, networks: Networks, config: IQLConfig) -> None:
        self.networks = networks
        self.config = config
        groups: list[dict[str, Any]] = [
            {"params": list(networks.critic.parameters()), "lr": config.critic_lr},
            {"params": list(networks.actor.parameters()), "lr": config.actor_lr},
        ]
        self.base_lr = [config.critic_lr, config.actor_lr]
        self.optimiser = torch.optim.Adam(groups, fused=True)
        self.descent = Descent(networks)

    def update(self, batch: Batch, coefficients: OfflineCoefficients) -> dict[str, Tensor]:
        """One step on the sum of value, critic and policy loss, then Polyak; returns detached scalars."""
        config, networks = self.config, self.networks
        loss, metrics = self.descent.forward(lambda: self._loss(batch, coefficients))
        self.optimiser.zero_grad(set_to_none=True)
        self.descent.backward(loss)
        groups = self.optimiser.param_groups
        norms = self.descent.clip(self.optimiser, [group["params"] for group in groups], config.grad_clip)
        for name, group, lr, norm in zip(("critic", "actor"), groups, self.base_lr, norms, strict=True):
            group["lr"] = lr * coefficients.lr_factor
            metrics[f"{name}_grad_norm"] = norm
        self.descent.step(self.optimiser)
        networks.polyak(config.tau)
        return {name: value.detach() for name, value in metrics.items()}

    def _loss(self, batch: Batch, coefficients: OfflineCoefficients) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        losses = implicit_losses(self.networks, batch, config.expectile)
        loss = losses.v_loss + losses.q_loss
        metrics = {
            "v_loss": losses.v_loss,
            "q_loss": losses.q_loss / config.network.n_quantiles,
            "q_mean": losses.q.mean(),
            "value_mean": losses.value.mean(),
            "advantage_std": losses.advantage.std(),
        }
        if coefficients.learn_policy:
            policy_loss, extra = self._policy_loss(batch, losses.advantage)
            loss = loss + policy_loss
            metrics |= {"policy_loss": policy_loss, **extra}
        return loss, metrics

    def _policy_loss(self, batch: Batch, advantage: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted cross-entropy of the mean.

        Days without a decision teach the policy nothing. Its width is left as it starts: a likelihood would fit
        the spread of the behaviours (measured: sigma .98), and exploring that widely wrecks the hand-over.
        """
        config = self.config
        decision = self.networks.actor(batch.state)
        everyones, own = of_all(advantage)
        weights = advantage_weight(everyones, config.beta, config.weight_cap, config.normalise_advantage)
        share, weight = effective_sample_share(weights), weights[own]
        data = batch.weights * batch.state.tradable
        data = data / data.sum(-1, keepdim=True).clamp_min(1e-8)
        loss = weighted_cross_entropy(weight * batch.state.decide, data, decision.mean)
        return loss, {"effective_sample": share, "rate": decision.rate.mean()}

    def state_dict(self) -> dict[str, Any]:
        """Networks and optimiser, for a checkpoint."""
        return {
            "networks": self.networks.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "descent": self.descent.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.networks.load_state_dict(state["networks"], strict=True)
        self.optimiser.load_state_dict(state["optimiser"])
        self.descent.load_state_dict(state["descent"])
