"""Soft actor-critic (Haarnoja et al. 2018) for logistic-normal portfolios: actor, temperature, anchor, balance."""

import math

import torch
from torch import Tensor

HALF_LOG_2PI_E = 0.5 * math.log(2 * math.pi * math.e)


def entropy_target(dims: Tensor, sigma: float) -> Tensor:
    """Differential entropy of `dims` independent Gaussians of standard deviation `sigma`, [B] -> [B]."""
    return dims * (math.log(sigma) + HALF_LOG_2PI_E)


def soft_value(alpha: Tensor, log_prob: Tensor, dims: Tensor, value: Tensor, scale: float) -> Tensor:
    """q - S alpha ln pi_y / d, [B] each -> [B].

    S makes alpha independent of the reward's scale and d of the number of names: without d the guide's .75
    outweighs q twentyfold on 20 names, and sigma stays at its bound until alpha has decayed.
    """
    return value - scale * alpha.detach() * log_prob / dims.clamp_min(1.0)


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target: Tensor) -> Tensor:
    """-ln alpha E[ln pi_y + H_target] (Haarnoja et al. 2018b, eq. 18, in ln alpha), [B] -> scalar."""
    return -log_alpha * (log_prob + target).detach().mean()


def anchor_loss(aim: Tensor, anchor: Tensor) -> Tensor:
    """KL(aim || anchor) averaged over the batch, [B, n] each; the anchor carries no gradient.

    0 where the aim is 0; the anchor is floored at 1e-8.
    """
    ratio = torch.log(aim.clamp_min(1e-8)) - torch.log(anchor.detach().clamp_min(1e-8))
    return (aim * ratio).sum(-1).mean()


def balance_loss(gate: Tensor) -> Tensor:
    """K sum_k mean_b(g_k)^2, [B, K] -> scalar in [1, K]; 1 where experts are used equally over the batch."""
    return gate.shape[-1] * gate.mean(0).square().sum()
