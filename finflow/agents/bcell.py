"""Phase 2: the B-Cell, experts under a gate trained by distributional SAC with CQL; or SAC with one expert.

It starts from the weights of phase 1: all of them, or all but the gate for a single expert.

One update, from top to bottom: the critic learns from recorded actions, and CQL lowers its values of other actions;
the actor maximises the reward along known paths plus the critic's value at their end, with an entropy bonus and a
penalty on the distance to the benchmark; the temperature follows the entropy target; the target critic follows the
critic. A horizon of 0 leaves out the paths: that is SAC.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finflow.agents.base import (
    Batch,
    Descent,
    OnlineCoefficients,
    Scales,
    Stateful,
    all_reduce_mean,
    discounted,
    own_stream,
    walk,
)
from finflow.agents.iql import implicit_losses
from finflow.envs.simulator import State, World
from finflow.losses import (
    anchor_loss,
    atom_spread,
    balance_loss,
    cql_penalty,
    cvar,
    entropy_target,
    lower_mean,
    quantile_loss,
    scaled_alpha,
    soft_value,
    temperature_loss,
    truncated_mixture,
)
from finflow.nn.actor import Actor, Decision, Experts, PortfolioActor, benchmark, dealt, dimensions, entropy, sample
from finflow.nn.networks import Critic, MlpActor, Networks
from finflow.schema.sections import BCellConfig

ADVANTAGE_FLOOR = 0.1  # least s_A, in units of the reward, so that an untrained critic is not amplified


class BCell(Stateful):
    """Learner of the B-Cell: distributional SAC and CQL.

    Parameters
    ----------
    world : executes sampled actions under the desk's rules.
    generator : of what is done in episodes, the same in every process that trains this agent, and of updates' draws,
        where each process has a stream of its own.

    Attributes
    ----------
    scales : the frozen scale of CQL, None until measured.
    reference : phase 1's critic as it was handed over, whose V bounds CQL below; None from scratch.
    reached : drifted weights and drawdowns at the end of the last update's paths; None without paths.
    """

    STATE = (
        "networks", "critic_optimiser", "actor_optimiser", "log_alpha", "scales", "reference", "descent", "generator",
        "acting",
    )  # fmt: skip

    def __init__(self, networks: Networks, config: BCellConfig, world: World, generator: torch.Generator) -> None:
        self.networks, self.config, self.world = networks, config, world
        self.acting, self.generator = generator, own_stream(generator)
        device = world.device
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.alpha_init), device=device))
        self.scales: Scales | None = None
        self.reference: Critic | None = None
        self.reached: tuple[Tensor, Tensor] | None = None
        gate = [] if networks.actor.gate is None else list(networks.actor.gate.parameters())
        rest = [p for name, p in networks.actor.named_parameters() if not name.startswith("gate.")]
        self.critic_optimiser = torch.optim.Adam(networks.critic.parameters(), lr=config.critic_lr, fused=True)
        self.actor_optimiser = torch.optim.Adam(
            [
                {"params": rest, "lr": config.actor_lr},
                {"params": gate, "lr": config.actor_lr * (config.gate.lr_ratio if config.gate else 1.0)},
                {"params": [self.log_alpha], "lr": config.alpha_lr},
            ],
            fused=True,
        )
        groups = [group for o in (self.critic_optimiser, self.actor_optimiser) for group in o.param_groups]
        self.base_lr = [group["lr"] for group in groups]
        self.descent = Descent(networks, [self.log_alpha])

    @torch.no_grad()
    def act(self, state: State, generator: torch.Generator | None = None) -> Decision:
        """Decision in B states; with a generator its mean is one draw of the policy instead."""
        self.networks.actor.eval()
        decision = self.networks.actor(state)
        self.networks.actor.train()
        if generator is None:
            return decision
        return decision._replace(mean=sample(decision, 1, generator)[0].squeeze(1))

    def update(self, batch: Batch, coefficients: OnlineCoefficients) -> dict[str, Tensor]:
        """One update of critic, actor and temperature on values from before it; returns detached scalars."""
        networks, config = self.networks, self.config
        groups = [*self.critic_optimiser.param_groups, *self.actor_optimiser.param_groups]
        for group, lr in zip(groups, self.base_lr, strict=True):
            group["lr"] = lr * coefficients.lr_factor
        embedding = networks.critic.embed(batch.state)
        critic_loss, metrics = self.descent.forward(self._critic_loss, batch, embedding, coefficients)
        self.critic_optimiser.zero_grad(set_to_none=True)
        self.actor_optimiser.zero_grad(set_to_none=True)
        stepped = [self.critic_optimiser]
        self.descent.backward(critic_loss)
        if coefficients.learn_policy:
            frozen = tuple(part.detach() for part in embedding)
            loss, extra = self.descent.forward(self._actor_loss, batch, frozen, coefficients)
            self.descent.backward(loss)
            metrics |= extra
            norm = self.descent.clip(self.actor_optimiser, [networks.actor.parameters()], config.grad_clip)
            metrics["actor_grad_norm"] = norm[0]
            stepped.append(self.actor_optimiser)
        norm = self.descent.clip(self.critic_optimiser, [networks.critic.parameters()], config.grad_clip)
        metrics["critic_grad_norm"] = norm[0]
        self.descent.step(*stepped)
        networks.polyak(config.tau)
        return {name: value.detach() for name, value in metrics.items()}

    def _critic_loss(
        self, batch: Batch, embedding: tuple[Tensor, ...], coefficients: OnlineCoefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Quantile regression on y_j = r + gamma z_j(s', w'), w' ~ pi, z of the target with the lower mean; CQL.

        With `top_quantiles_dropped` z is what TQC leaves of both targets' mixture.
        """
        networks, config = self.networks, self.config
        critic, target = networks.critic, networks.target
        atoms = critic.atoms(embedding, batch.weights[:, None]).squeeze(1)
        with torch.no_grad():
            next_decision = networks.actor(batch.next_state)
            proposal, _ = sample(next_decision, 1, self.generator)
            proposal = self.world.execute(proposal, batch.next_state).float()
            both = target.atoms(target.embed(batch.next_state), proposal).squeeze(1)
            dropped = config.top_quantiles_dropped
            z = lower_mean(both) if dropped is None else truncated_mixture(both, dropped)
            y = batch.reward[:, None] + batch.discount[:, None] * z
        td = quantile_loss(atoms, y[:, None].expand(-1, atoms.shape[1], -1), all_reduce_mean(atom_spread(atoms)))
        q = atoms.detach().mean(-1)
        spread = torch.quantile(q, torch.tensor([0.05, 0.95], device=q.device))
        metrics = {
            "critic_loss": td / atoms.shape[-1],
            "q_mean": q.mean(),
            "q_range": spread[1] - spread[0],
            "atom_range": atoms.detach().diff(dim=-1).sum(-1).abs().mean(),
        }
        loss = td
        weight = self.cql_weight() * coefficients.cql
        if weight > 0:
            penalty = self._cql(batch, embedding, atoms, next_decision)
            loss = loss + weight * penalty
            metrics["cql"] = penalty
        return loss, metrics

    def cql_weight(self) -> float:
        """alpha_eff on the frozen scale; 0 until the scale is measured, and where there is no CQL."""
        if self.scales is None or self.config.cql is None:
            return 0.0
        return scaled_alpha(self.config.cql.alpha, self.config.network.n_quantiles, *self.scales)

    def _cql(self, batch: Batch, embedding: tuple[Tensor, ...], atoms: Tensor, next_decision: Decision) -> Tensor:
        """CQL penalty on a sub-batch (unbiased): random portfolios, pi(s), pi(s') and the data's own action."""
        config, networks = self.config.cql, self.networks
        assert config is not None
        rows = max(1, round(len(batch.reward) * config.batch_fraction))
        # Random rows, not the first ones: a batch has its offline rows before its online ones.
        device = atoms.device
        index = torch.randperm(len(batch.reward), generator=self.generator, device=device)[:rows]
        state = batch.state.at(index)
        part = tuple(field[index] for field in embedding)
        with torch.no_grad():
            shape = (rows, config.n_actions, state.drifted.shape[-1])
            expo = torch.rand(shape, generator=self.generator, device=device)
            expo = -torch.log(expo.clamp_min(1e-12)) * state.tradable[:, None]
            here, _ = sample(networks.actor(state), config.n_actions, self.generator)
            there, _ = sample(Decision(*(field[index] for field in next_decision)), config.n_actions, self.generator)
            actions = torch.cat([expo / expo.sum(-1, keepdim=True), here, there], 1)
            actions = self.world.execute(actions, state).float()
        q = networks.critic.values(part, actions)
        floor = None
        if config.calibrate and self.reference is not None:
            # The policy's own samples alone: random portfolios have no such reference.
            with torch.no_grad():
                value = self.reference.value_of(state)
            floor = value[:, None, None].expand_as(q).clone()
            floor[:, : config.n_actions] = -torch.inf
        return cql_penalty(q, atoms[index].mean(-1), floor).mean()

    def _actor_loss(
        self, batch: Batch, embedding: tuple[Tensor, ...], coefficients: OnlineCoefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """-E[value] + eta KL(aim || e) + balance; the temperature beside it.

        value = (sum_h gamma^h r_h + gamma^H u(s_H)) / H along paths, or u(s) / S on the batch's states at H = 0, with
        u = min_j rho(z^j(s, w)) - S alpha ln pi_y(w) / d, w ~ pi(s), the soft value of SAC. As in TQC, its truncation
        is all that keeps values low: with `top_quantiles_dropped` rho is the twins' mean.
        """
        networks, config, actor = self.networks, self.config, self.networks.actor
        count = len(batch.reward) // actor.actors * actor.actors if batch.paths is None else len(batch.paths.rows)
        keep = self._kept(count, batch.state.priors.shape[1])
        networks.critic.requires_grad_(False)
        if batch.paths is None:
            gone, state = None, dealt(batch.state, actor.actors)
            embedding = tuple(part[:count] for part in embedding)
        else:
            noise = config.network.state_noise
            gone = walk(actor, self.world, batch.paths, noise, self.generator, coefficients.temperature, keep)
            state, self.reached = gone.final, gone.reached
            embedding = networks.critic.embed(state)
        decision = actor.members(state, coefficients.temperature, keep)
        proposal, log_prob = sample(decision, 1, self.generator)
        executed = self.world.straight_through(proposal.squeeze(1), state)
        atoms = networks.critic.atoms(embedding, executed[:, None]).squeeze(1)
        networks.critic.requires_grad_(True)
        rho = atoms.mean(-1)
        if config.risk_weight > 0:
            rho = torch.lerp(rho, cvar(atoms, config.risk_level), config.risk_weight)
        value = rho.amin(-1) if config.top_quantiles_dropped is None else rho.mean(-1)
        alpha = self.log_alpha.exp()
        dims = dimensions(decision)
        # Unit of value: s_A, so that alpha and eta mean the same whatever the reward's scale.
        scale = max(self.scales.advantage, ADVANTAGE_FLOOR) if self.scales else 1.0
        soft = soft_value(alpha, log_prob.squeeze(1), dims, value, scale)
        if gone is None:
            policy, anchor = -(soft / scale).mean(), anchor_loss(decision.aim, benchmark(state)[:, 0])
        else:
            policy, anchor = -discounted(gone.rewards, soft, config.gamma).mean(), gone.anchor
        balance = balance_loss(decision.gate)
        target = entropy_target(dims, coefficients.sigma)
        temperature = temperature_loss(self.log_alpha, log_prob.squeeze(1), target)
        loss = policy + coefficients.anchor * anchor + coefficients.balance * balance + temperature
        gate_entropy = -(decision.gate * torch.log(decision.gate.clamp_min(1e-8))).sum(-1)
        return loss, {
            "actor_loss": policy,
            "alpha": alpha,
            "entropy": entropy(decision).mean(),
            "entropy_target": target.mean(),
            "anchor_kl": anchor,
            "gate_balance": balance,
            "gate_entropy": gate_entropy.mean(),
            "rate": decision.rate.mean(),
            "effective_assets": 1.0 / decision.mean.square().sum(-1).mean(),
            **({} if gone is None else {"path_reward": gone.rewards.mean()}),
        }

    def _kept(self, rows: int, experts: int) -> Tensor | None:
        """Experts that expert dropout keeps, at least one, [rows, K]."""
        if self.config.gate is None:
            return None
        chance = torch.rand(rows, experts, generator=self.generator, device=self.world.device)
        keep = chance >= self.config.gate.expert_dropout
        return keep | ~keep.any(-1, keepdim=True)

    def hand_over(self) -> None:
        """Keep a frozen copy of phase 1's critic, whose V bounds CQL from here on."""
        self.reference = copy.deepcopy(self.networks.critic).requires_grad_(False)

    def refit(self, batch: Batch) -> dict[str, Tensor]:
        """Fit critic and value to a changed reward by IQL's losses, the actor frozen (hand-over)."""
        losses = self.descent.forward(implicit_losses, self.networks, batch, self.config.expectile)
        self.critic_optimiser.zero_grad(set_to_none=True)
        self.descent.backward(losses.v_loss + losses.q_loss)
        self.descent.clip(self.critic_optimiser, [self.networks.critic.parameters()], self.config.grad_clip)
        self.descent.step(self.critic_optimiser)
        self.networks.polyak(self.config.tau)
        return {"v_loss": losses.v_loss.detach(), "q_loss": losses.q_loss.detach() / self.config.network.n_quantiles}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state["reference"] is not None:
            self.hand_over()
        super().load_state_dict(state)
        self.scales = None if self.scales is None else Scales(*self.scales)  # read back as a plain pair


@torch.no_grad()
def hand_over(parent: Networks, child: Networks) -> str | None:
    """Copy the parent's weights into the child; one line on what was not transferred, or None.

    Critics, targets, V, trading rate and width are equal to the bit. So are experts and gate where the child has
    them; a single expert starts at the mean of the parent's tilts.

    Raises
    ------
    RuntimeError
        If the networks do not fit in any other way.
    """
    weights: Mapping[str, Tensor] = parent.state_dict()
    if child.actor.gate is not None or parent.actor.gate is None:
        child.load_state_dict(weights, strict=True)
        return None
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("actor.gate.")}
    child.load_state_dict(
        kept | {f"actor.{name}": tensor for name, tensor in _merged(parent.actor).items()}, strict=True
    )
    return "the gate is not handed over: the single expert starts at the mean of the parent's, all alike"


def _merged(actor: Actor) -> dict[str, Tensor]:
    """Weights of one expert whose tilt is the mean of all of the actor's."""
    if isinstance(actor, PortfolioActor):
        return {f"experts.{name}": tensor for name, tensor in _side_by_side(actor.experts).items()}
    assert isinstance(actor, MlpActor)
    assets = actor.sigma.bias.shape[-1] + 1
    return {f"tilt.{name}": part.unflatten(-1, (-1, assets)).mean(-2) for name, part in actor.tilt.named_parameters()}


def _side_by_side(experts: Experts) -> dict[str, Tensor]:
    """K experts of H hidden units as one of K H, its tilt the mean of theirs; each unit still sees its own features."""
    seen = experts.weight * experts.groups.T[..., None]
    return {
        "weight": seen.flatten(2)[:, :, None],
        "out": experts.out.flatten(1)[:, None] / experts.out.shape[1],
    }
