"""Phase 1: TD3+BC (Fujimoto & Gu 2021) with quantile critics, on portfolios.

The policy climbs the first critic and is held to the data by cloning; the critic's target is the lower of both targets
at the target policy's portfolio, smoothed by noise. V is fitted beside them as IQL does, which TD3+BC has no use for:
phase 2 is handed the same set of networks, whichever algorithm filled it.
"""

import copy

import torch
from torch import Tensor

from finflow.agents.base import Batch, Descent, OfflineCoefficients, Stateful, all_reduce_mean, own_stream
from finflow.envs.simulator import World
from finflow.losses import (
    atom_spread,
    expectile_loss,
    kl_divergence,
    lower_mean,
    quantile_loss,
    smoothed,
    td3bc_actor_loss,
)
from finflow.nn.actor import dealt
from finflow.nn.networks import Networks
from finflow.schema.sections import TD3BCConfig


class TD3BC(Stateful):
    """Learner of TD3+BC; `generator` draws the noise on the target's portfolios."""

    STATE = ("networks", "target_actor", "critic_optimiser", "actor_optimiser", "descent", "updates", "generator")

    def __init__(self, networks: Networks, config: TD3BCConfig, world: World, generator: torch.Generator) -> None:
        self.networks, self.config, self.world, self.generator = networks, config, world, own_stream(generator)
        self.target_actor = copy.deepcopy(networks.actor).requires_grad_(False).eval()
        self.critic_optimiser = torch.optim.Adam(networks.critic.parameters(), lr=config.critic_lr, fused=True)
        self.actor_optimiser = torch.optim.Adam(networks.actor.parameters(), lr=config.actor_lr, fused=True)
        self.descent = Descent(networks)
        self.updates = 0
        self.reached: tuple[Tensor, Tensor] | None = None

    def update(self, batch: Batch, coefficients: OfflineCoefficients) -> dict[str, Tensor]:
        """One step of critic and value, every `policy_delay`-th one of policy and targets too; detached scalars."""
        networks, config = self.networks, self.config
        for optimiser, lr in ((self.critic_optimiser, config.critic_lr), (self.actor_optimiser, config.actor_lr)):
            optimiser.param_groups[0]["lr"] = lr * coefficients.lr_factor
        embedding = networks.critic.embed(batch.state)
        loss, metrics = self.descent.forward(self._critic_loss, batch, embedding)
        self.critic_optimiser.zero_grad(set_to_none=True)
        self.descent.backward(loss)
        norm = self.descent.clip(self.critic_optimiser, [networks.critic.parameters()], config.grad_clip)
        metrics["critic_grad_norm"] = norm[0]
        stepped = [self.critic_optimiser]
        self.updates += 1
        delayed = self.updates % config.policy_delay == 0
        if delayed and coefficients.learn_policy:  # on the critic from before its step, as every learner here
            frozen = tuple(part.detach() for part in embedding)
            policy_loss, extra = self.descent.forward(self._policy_loss, batch, frozen)
            self.actor_optimiser.zero_grad(set_to_none=True)
            self.descent.backward(policy_loss)
            norm = self.descent.clip(self.actor_optimiser, [networks.actor.parameters()], config.grad_clip)
            stepped.append(self.actor_optimiser)
            metrics |= extra | {"policy_loss": policy_loss, "actor_grad_norm": norm[0]}
        self.descent.step(*stepped)
        if delayed:
            networks.polyak(config.tau)
            with torch.no_grad():
                pairs = zip(self.target_actor.parameters(), networks.actor.parameters(), strict=True)
                for target, online in pairs:
                    target.lerp_(online, config.tau)
        return {name: value.detach() for name, value in metrics.items()}

    def _critic_loss(self, batch: Batch, embedding: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Quantile regression on y_j = r + gamma z_j(s', w'), z of the lower target; and V, as IQL fits it."""
        config, critic, target = self.config, self.networks.critic, self.networks.target
        atoms = critic.atoms(embedding, batch.weights[:, None]).squeeze(1)
        with torch.no_grad():
            following = self.target_actor(batch.next_state)
            shape = following.log_sigma.shape
            noise = torch.randn(shape, generator=self.generator, device=atoms.device)
            proposal = smoothed(following.mean, following.tradable, config.policy_noise * noise, config.noise_clip)
            executed = self.world.execute(proposal, batch.next_state).float()
            z = lower_mean(target.atoms(target.embed(batch.next_state), executed[:, None]).squeeze(1))
            y = batch.reward[:, None] + batch.discount[:, None] * z
            q_target = target.atoms(target.embed(batch.state), batch.weights[:, None]).squeeze(1).mean(-1).amin(-1)
        q_loss = quantile_loss(atoms, y[:, None].expand_as(atoms), all_reduce_mean(atom_spread(atoms)))
        value = critic.value(embedding)
        v_loss = expectile_loss(q_target - value, config.expectile)
        return q_loss + v_loss, {
            "v_loss": v_loss,
            "q_loss": q_loss / atoms.shape[-1],
            "q_mean": q_target.mean(),
            "value_mean": value.mean(),
        }

    def _policy_loss(self, batch: Batch, embedding: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Value of what is executed by the first critic, and cloning on days with a decision.

        The width is left as it starts, as in phase 1's other learner.
        """
        networks, state = self.networks, dealt(batch.state, self.networks.actor.actors)
        rows = slice(0, len(state.row))
        decision = networks.actor.members(state, width=False)
        executed = self.world.straight_through(decision.mean, state)
        networks.critic.requires_grad_(False)
        q = networks.critic.atoms(tuple(part[rows] for part in embedding), executed[:, None]).squeeze(1)[:, 0].mean(-1)
        networks.critic.requires_grad_(True)
        data = batch.weights[rows] * state.tradable
        data = data / data.sum(-1, keepdim=True).clamp_min(1e-8)
        cloning = kl_divergence(data, decision.mean) * state.decide
        loss = td3bc_actor_loss(q, cloning, self.config.alpha)
        return loss, {"cloning_kl": cloning.mean(), "policy_q": q.mean(), "rate": decision.rate.mean()}
