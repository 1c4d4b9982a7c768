"""The interface between training loops and learners, the learner of each algorithm's settings, and the greedy policy.

The greedy policy is the trained actor without exploration, for validation, evaluation and decisions; whole, or with
one part removed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import Batch, Checkpointable, OfflineCoefficients, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.agents.direct import Direct
from finflow.agents.iql import IQL
from finflow.agents.td3bc import TD3BC
from finflow.envs.simulator import State, World
from finflow.nn.actor import Actor, ActorEnsemble, Decision
from finflow.nn.networks import Networks
from finflow.plugins import added
from finflow.schema.sections import BCellConfig, DirectConfig, IQLConfig, OfflineAlgorithm, OnlineAlgorithm, TD3BCConfig

Floats = NDArray[np.float64]


class GreedyPolicy:
    """Acts by the policy's mean; arrays in, arrays out.

    Parameters
    ----------
    entries : rows at which a window begins. There, from cash, it buys its whole aim at once, as every baseline does;
        otherwise a slow trading rate would spend its first months in cash.
    """

    def __init__(self, actor: Actor | ActorEnsemble, world: World, entries: Iterable[int] = ()) -> None:
        self.actor, self.world, self.entries = actor, world, frozenset(entries)

    def at_whole_tilt(self) -> "GreedyPolicy":
        """The policy as it was trained, whatever part of its tilt is deployed (`Actor.confidence`)."""
        return GreedyPolicy(self.actor.whole(), self.world, self.entries)

    def act(self, rows: NDArray[np.int64], drifted: Floats, drawdown: Floats, **changed: Any) -> Floats:
        """Target weights [E, n] at rows [E], holding `drifted` [E, n], ln(peak / NAV) `drawdown` [E].

        They are the decision's mean, or its aim where a window is entered from cash. `changed` are settings of the
        actor, see `Actor.forward`.
        """
        decision = self.decide(rows, drifted, drawdown, width=False, **changed)
        entering = np.array([int(row) in self.entries for row in rows]) & (drifted[:, -1] >= 1.0)
        mean, aim = (part.double().cpu().numpy() for part in (decision.mean, decision.aim))
        return np.where(entering[:, None], aim, mean)

    def explain(self, rows: NDArray[np.int64], drifted: Floats, drawdown: Floats) -> tuple[Floats, Floats]:
        """Gate [E, K] and trading rate [E] of the same decisions."""
        decision = self.decide(rows, drifted, drawdown)
        return decision.gate.double().cpu().numpy(), decision.rate.double().cpu().numpy()

    @torch.no_grad()
    def decide(self, rows: NDArray[np.int64], drifted: Floats, drawdown: Floats, **changed: Any) -> Decision:
        """The actor's full output in these states, without dropout."""
        training = self.actor.training
        if training:
            self.actor.eval()
        decision = self.actor(self.world.observe(rows, drifted, drawdown), **changed)
        if training:
            self.actor.train()
        return decision


def describe(decision: Decision) -> dict[str, float]:
    """Diagnostics of gate and experts over B states.

    gate_entropy: mean entropy of the gate in nats (ln K: all experts alike); expert_distance: mean over pairs of
    experts of half the L1 distance between their portfolios (0: copies or one alone, 1: nothing in common); rate: mean
    trading rate; effective_assets: 1 / mean sum of squared weights.
    """
    gate, experts = decision.gate, decision.experts
    count = experts.shape[1]
    apart = 0.5 * (experts[:, :, None] - experts[:, None]).abs().sum(-1)
    return {
        "gate_entropy": float(-(gate * torch.log(gate.clamp_min(1e-8))).sum(-1).mean()),
        "expert_distance": float(apart.sum((1, 2)).mean() / max(count * (count - 1), 1)),
        "rate": float(decision.rate.mean()),
        "effective_assets": float(1.0 / decision.mean.square().sum(-1).mean()),
    }


BLOCK = 63
"""Trading days that stay together when the gate is shuffled."""


@dataclass(frozen=True)
class Ablations:
    """V variants of a policy, each with one part taken away; they decide in one pass, a row each.

    Attributes
    ----------
    names : V names.
    keep : [V, K] experts left in.
    shuffled, untilted : [V] whether the gate is that of another day, whether the experts stay at their priors.
    elsewhen : decision row -> row whose gate a shuffled gate takes.
    """

    policy: GreedyPolicy
    names: tuple[str, ...]
    keep: Tensor
    shuffled: NDArray[np.bool_]
    untilted: Tensor
    elsewhen: Mapping[int, int]

    def act(self, rows: NDArray[np.int64], drifted: Floats, drawdown: Floats) -> Floats:
        """Target weights [V, n] at rows [V], see `GreedyPolicy.act`."""
        moved = [self.elsewhen[int(row)] if away else row for row, away in zip(rows, self.shuffled, strict=True)]
        gate_of = self.policy.world.observe(np.array(moved), drifted, drawdown)
        return self.policy.act(rows, drifted, drawdown, keep=self.keep, gate_of=gate_of, untilted=self.untilted)


def ablations(
    policy: GreedyPolicy, experts: Sequence[str], rows: Sequence[int], rng: np.random.Generator, block: int = BLOCK
) -> Ablations:
    """The policy whole, without one expert each, with its gate shuffled over the days, with experts at their priors.

    A policy without a gate has the first and the last alone.

    The gate is shuffled over `rows`, of which `block` stay together: its shares stay, their timing goes.
    """
    count, device = len(experts), policy.world.device
    left_out = [] if policy.actor.gate is None else list(range(count))
    shuffled = [] if policy.actor.gate is None else ["shuffled gate"]
    names = ("policy", *(f"without {experts[k]}" for k in left_out), *shuffled, "experts at their priors")
    keep = torch.ones(len(names), count, dtype=torch.bool, device=device)
    for variant, expert in enumerate(left_out, 1):
        keep[variant, expert] = False
    return Ablations(
        policy,
        names,
        keep,
        np.array([name in shuffled for name in names]),
        torch.tensor([name == names[-1] for name in names], device=device),
        dict(zip(rows, elsewhen(rows, rng, block), strict=True)),
    )


def elsewhen(rows: Sequence[int], rng: np.random.Generator, block: int = BLOCK) -> list[int]:
    """The same rows in blocks of about a quarter year, shuffled so that no block keeps its place.

    Shuffling single days would make a slow gate jump every day: the cost of its trades would hide its timing.
    """
    blocks = np.array_split(np.asarray(rows), max(len(rows) // block, 2))
    cycle = rng.permutation(len(blocks))
    moved = np.empty_like(cycle)
    moved[cycle] = np.roll(cycle, 1)
    return np.concatenate([blocks[k] for k in moved]).tolist()


class Learner(Checkpointable, Protocol):
    """Networks with the complete state of their training.

    reached : drifted weights and drawdowns at the end of the last update's paths; None where it had none.
    """

    networks: Networks
    reached: tuple[Tensor, Tensor] | None


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

    def act(self, state: State, generator: torch.Generator | None = None) -> Decision:
        """Decision in B states; with a generator its mean is one draw of the policy instead."""
        ...

    def update(self, batch: Batch, coefficients: OnlineCoefficients) -> dict[str, Tensor]:
        """One update; returns detached scalars, `critic_loss` and `actor_loss` among them."""
        ...

    def hand_over(self) -> None:
        """Keep a frozen copy of phase 1's critic, the lower bound of CQL."""

    def refit(self, batch: Batch) -> dict[str, Tensor]:
        """Fit critic and value to a changed reward, the actor frozen; returns detached scalars."""
        ...


LEARNERS: Mapping[type[OfflineAlgorithm | OnlineAlgorithm], Callable[[Networks, Any, World, torch.Generator], Any]] = {
    IQLConfig: IQL,
    TD3BCConfig: TD3BC,
    DirectConfig: Direct,
    BCellConfig: BCell,
}
"""Settings of an algorithm -> what builds its learner from networks, settings, world and generator."""


def make_learner(
    networks: Networks, config: OfflineAlgorithm | OnlineAlgorithm, world: World, generator: torch.Generator
) -> Any:
    """The `OfflineLearner` or `OnlineLearner` that `config` describes."""
    return {**LEARNERS, **dict(added("algorithms").values())}[type(config)](networks, config, world, generator)
