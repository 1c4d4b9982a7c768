"""The trained policy with one part removed, to measure what the part contributes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.agents.greedy import Floats, GreedyPolicy

BLOCK = 63
"""Trading days that stay together when the gate is shuffled."""

Act = Callable[[NDArray[np.int64], Floats, Floats], Floats]


def variants(
    policy: GreedyPolicy, experts: Sequence[str], rows: Sequence[int], rng: np.random.Generator, block: int = BLOCK
) -> Mapping[str, Act]:
    """Leave one expert out, shuffle the gate over the days, freeze the experts at their priors; the last alone
    where there is no gate.

    Parameters
    ----------
    rows : decision rows over which the gate is shuffled: its shares stay, their timing goes.
    block : rows that stay together then.
    """
    frozen: dict[str, Act] = {"experts at their priors": _frozen(policy)}
    if policy.actor.gate is None:
        return frozen
    found: dict[str, Act] = {f"without {name}": _without(policy, k, len(experts)) for k, name in enumerate(experts)}
    return found | {"shuffled gate": _shuffled(policy, rows, rng, block)} | frozen


def _without(policy: GreedyPolicy, expert: int, count: int) -> Act:
    keep = torch.ones(1, count, dtype=torch.bool, device=policy.world.device)
    keep[0, expert] = False

    @torch.no_grad()
    def act(rows: NDArray[np.int64], drifted: Floats, drawdown: Floats) -> Floats:
        policy.actor.eval()
        decision = policy.actor(policy.observe(rows, drifted, drawdown), keep=keep.expand(len(rows), -1))
        return policy.target(decision, rows, drifted)

    return act


def _shuffled(policy: GreedyPolicy, rows: Sequence[int], rng: np.random.Generator, block: int) -> Act:
    drawn = dict(zip(rows, elsewhen(rows, rng, block), strict=True))

    @torch.no_grad()
    def act(rows: NDArray[np.int64], drifted: Floats, drawdown: Floats) -> Floats:
        policy.actor.eval()
        state = policy.observe(rows, drifted, drawdown)
        elsewhere = policy.observe(np.array([drawn[int(row)] for row in rows]), drifted, drawdown)
        decision = policy.actor(state, gate_of=elsewhere)
        return policy.target(decision, rows, drifted)

    return act


def elsewhen(rows: Sequence[int], rng: np.random.Generator, block: int = BLOCK) -> list[int]:
    """The same rows in blocks of about a quarter year, shuffled so that no block keeps its place.

    Shuffling single days would make a slow gate jump every day: the cost of its trades would hide its timing.
    """
    blocks = np.array_split(np.asarray(rows), max(len(rows) // block, 2))
    cycle = rng.permutation(len(blocks))
    moved = np.empty_like(cycle)
    moved[cycle] = np.roll(cycle, 1)
    return np.concatenate([blocks[k] for k in moved]).tolist()


def _frozen(policy: GreedyPolicy) -> Act:
    @torch.no_grad()
    def act(rows: NDArray[np.int64], drifted: Floats, drawdown: Floats) -> Floats:
        policy.actor.eval()
        decision = policy.actor(policy.observe(rows, drifted, drawdown), untilted=True)
        return policy.target(decision, rows, drifted)

    return act
