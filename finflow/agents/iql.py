"""Phase 1: implicit Q-learning (Kostrikov et al. 2021) with quantile critics, on portfolios."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from finflow.agents.base import (
    Batch,
    Descent,
    OfflineCoefficients,
    Stateful,
    advantage_spread,
    all_gather,
    all_reduce_mean,
    discounted,
    own_stream,
    walk,
)
from finflow.envs.simulator import World
from finflow.losses import (
    advantage_weight,
    anchor_loss,
    atom_spread,
    effective_sample_share,
    expectile_loss,
    lower_mean,
    quantile_loss,
    weighted_cross_entropy,
)
from finflow.nn.actor import benchmark, dealt, held_weights
from finflow.nn.networks import Networks
from finflow.schema.sections import IQLConfig

SPREAD_STATES = 64  # states of a batch on which the unit of Q is measured at each update


class ImplicitLosses(NamedTuple):
    """v_loss and q_loss (scalars with gradient); advantage, value and q of the data [B], no gradient."""

    v_loss: Tensor
    q_loss: Tensor
    advantage: Tensor
    value: Tensor
    q: Tensor


def implicit_losses(networks: Networks, batch: Batch, expectile: float) -> ImplicitLosses:
    """Value and critic losses of IQL, which use no action outside the data.

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
    q_loss = quantile_loss(atoms, y[:, None].expand_as(atoms), all_reduce_mean(atom_spread(atoms)))
    return ImplicitLosses(expectile_loss(q - value, expectile), q_loss, q - value.detach(), value.detach(), q)


class IQL(Stateful):
    """Implicit Q-learning.

    Critic and value use no action outside the data. `extraction` says how the policy is taken from them: by
    advantage-weighted regression as in the paper (`awr`), by the critic's own gradient (`q_gradient`), or along known
    paths with V at their end (`value_gradient`). The last two evaluate actions outside the data.

    Parameters
    ----------
    generator : of noise along the paths and of the behaviours that the unit of Q is measured on.

    Attributes
    ----------
    reached : drifted weights and drawdowns at the end of the last update's paths; None without paths.
    """

    STATE = ("networks", "optimiser", "descent", "advantage_scale", "generator")

    def __init__(self, networks: Networks, config: IQLConfig, world: World, generator: torch.Generator) -> None:
        self.networks, self.config, self.world, self.generator = networks, config, world, own_stream(generator)
        self.reached: tuple[Tensor, Tensor] | None = None
        self.advantage_scale: Tensor | None = None
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
        loss, metrics = self.descent.forward(self._loss, batch, coefficients)
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
            if config.extraction == "value_gradient":
                policy_loss, extra = self._value_gradient(batch)
            elif config.extraction == "q_gradient":
                policy_loss, extra = self._q_gradient(batch)
            else:
                policy_loss, extra = self._regression(batch, losses.advantage)
            loss = loss + policy_loss
            metrics |= {"policy_loss": policy_loss, **extra}
        return loss, metrics

    def _value_gradient(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean reward a day of H days and V beyond them, plus eta KL(aim || e)."""
        assert batch.paths is not None
        config, networks = self.config, self.networks
        gone = walk(networks.actor, self.world, batch.paths, config.network.state_noise, self.generator)
        self.reached = gone.reached
        networks.critic.requires_grad_(False)
        value = networks.critic.value_of(gone.final)
        networks.critic.requires_grad_(True)
        policy = -discounted(gone.rewards, value, config.gamma).mean()
        extra = {"anchor_kl": gone.anchor, "rate": gone.last.rate.mean(), "path_reward": gone.rewards.mean()}
        return policy + config.prior_kl_coef * gone.anchor, extra

    def _q_gradient(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus min_k q_k(s, w) / s_A, plus eta KL(aim || e), each actor on its own rows.

        The rate gets no gradient: Q depends on it mostly by the cost of trading, which the ledger knows exactly.
        """
        config, networks = self.config, self.networks
        state = dealt(batch.state, networks.actor.actors)
        spread = advantage_spread(networks, self.world, state.at(slice(0, SPREAD_STATES)), self.generator)
        old = self.advantage_scale
        self.advantage_scale = spread if old is None else torch.lerp(old, spread, 0.01)
        decision = networks.actor.members(state, width=False)
        mean = torch.lerp(held_weights(state), decision.aim, decision.rate.detach()[:, None])
        executed = self.world.straight_through(mean, state)
        networks.critic.requires_grad_(False)
        q = networks.critic.values(networks.critic.embed(state), executed[:, None]).squeeze(1).amin(-1)
        networks.critic.requires_grad_(True)
        anchor = anchor_loss(decision.aim, benchmark(state)[:, 0])
        policy = -(q / self.advantage_scale).mean()
        return policy + config.prior_kl_coef * anchor, {
            "anchor_kl": anchor,
            "rate": decision.rate.mean(),
            "policy_q": q.mean(),
        }

    def _regression(self, batch: Batch, advantage: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted cross-entropy of the mean, each actor on its own rows.

        Days without a decision have no weight. The width stays at its initial value: a likelihood would fit the
        spread of the behaviours (measured: sigma .98), and exploring that widely ruins the start of phase 2.
        """
        config = self.config
        state = dealt(batch.state, self.networks.actor.actors)
        rows = slice(0, len(state.row))
        decision = self.networks.actor.members(state, width=False)
        everyones, own = all_gather(advantage)
        weights = advantage_weight(everyones, config.beta, config.max_weight, config.normalise_advantage)
        share, weight = effective_sample_share(weights), weights[own][rows]
        data = batch.weights[rows] * state.tradable
        data = data / data.sum(-1, keepdim=True).clamp_min(1e-8)
        loss = weighted_cross_entropy(weight * state.decide, data, decision.mean)
        return loss, {"effective_sample": share, "rate": decision.rate.mean()}
