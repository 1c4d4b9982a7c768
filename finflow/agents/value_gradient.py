"""Exact gradients of a policy's reward along known paths: stochastic value gradients over a horizon, SVG(H).

Trades do not move prices, so along a recorded or resampled path the net reward of each day and the weights on the
next are known, differentiable functions of the policy (Heess et al. 2015; with a critic at the end SAC-SVG, Amos
et al. 2021; without one direct reinforcement, Moody & Saffell 2001, and deep hedging, Buehler et al. 2019).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from finflow.agents.batch import Paths
from finflow.envs.world import State, View, World, joined
from finflow.losses import anchor_loss
from finflow.nn.actor import Actor, benchmark
from finflow.nn.layers import Decision


class Walk(NamedTuple):
    """H days of B walkers.

    rewards [B, H] and anchor (scalar, mean KL(aim || e)) with gradient; final: the state after the last day, with
    gradient through what is held; reached: drifted [B, n] and drawdown [B] there, without; last: the last decision.
    """

    rewards: Tensor
    anchor: Tensor
    final: State
    reached: tuple[Tensor, Tensor]
    last: Decision


def walk(
    actor: Actor,
    world: World,
    paths: Paths,
    noise: float,
    generator: torch.Generator,
    temperature: float = 1.0,
    keep: Tensor | None = None,
) -> Walk:
    """Follow the policy's mean for H days, each actor with its own walkers.

    Parameters
    ----------
    noise : standard deviation of noise on the features, drawn anew each day.
    temperature, keep : of the gate, see `Actor`.
    """
    rows, drifted, drawdown, all_open = paths
    days = rows.shape[1] - 1
    # The day comes first, so that the data of a day are contiguous.
    ahead = world.look(rows.T.contiguous(), noise, generator)
    rewards: list[Tensor] = []
    anchors: list[Tensor] = []
    decision = None
    for day in range(days):
        state = joined(View(*(part[day] for part in ahead)), drifted, drawdown)
        decision = actor.members(state, temperature, keep, width=False)
        outcome = world.live(decision.mean, state, all_open=all_open)
        rewards.append(outcome.reward)
        anchors.append(anchor_loss(decision.aim, benchmark(state)[:, 0]))
        drifted, drawdown = outcome.drifted, outcome.drawdown
    assert decision is not None
    final = joined(View(*(part[days] for part in ahead)), drifted, drawdown)
    reached = drifted.detach(), drawdown.detach()
    return Walk(torch.stack(rewards, 1).float(), torch.stack(anchors).mean(), final, reached, decision)


def discounted(rewards: Tensor, value: Tensor | float, gamma: float) -> Tensor:
    """Mean reward a day of each path: (sum_h gamma^h r_h + gamma^H value) / H, [B, H] and [B] -> [B]."""
    days = rewards.shape[1]
    weight = gamma ** torch.arange(days, device=rewards.device, dtype=rewards.dtype)
    return ((rewards * weight).sum(1) + gamma**days * value) / days
