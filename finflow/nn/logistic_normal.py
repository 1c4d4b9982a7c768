"""Logistic-normal policy over tradable assets, with cash as the reference.

y = ln(w_bar_i / w_bar_cash) + sigma eps, w = softmax([y, 0]). The entropy bonus uses ln pi_y, the Gaussian density of
y: the density on the simplex adds E sum ln w_i, a barrier that drags every policy to 1/N.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LN_FLOOR = 1e-8  # of a weight, before its logarithm


class Decision(NamedTuple):
    """Output of an actor in B states, over tradable assets only (others are 0).

    mean [B, n] w_bar; aim [B, n]; gate [B, K]; experts [B, K, n]; rate [B]; log_sigma [B, d]; tradable [B, n].
    """

    mean: Tensor
    aim: Tensor
    gate: Tensor
    experts: Tensor
    rate: Tensor
    log_sigma: Tensor
    tradable: Tensor


def logits(weights: Tensor) -> Tensor:
    """y = ln(w_i / w_cash), [..., n] -> [..., d], weights floored at 1e-8."""
    logs = torch.log(weights.clamp_min(LN_FLOOR))
    return logs[..., :-1] - logs[..., -1:]


def from_logits(y: Tensor, tradable: Tensor) -> Tensor:
    """softmax([y, 0]) over tradable assets, y [..., d], tradable [..., n] -> [..., n]."""
    full = torch.cat([y, torch.zeros_like(y[..., :1])], -1)
    return torch.softmax(full.masked_fill(~tradable, -torch.inf), -1)


def sample(decision: Decision, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Reparameterised portfolios [B, A, n] and their ln pi_y [B, A], A = `count`."""
    mean = logits(decision.mean)[:, None]
    shape = (mean.shape[0], count, mean.shape[-1])
    noise = torch.randn(shape, generator=generator, device=mean.device)
    log_sigma, tradable = decision.log_sigma[:, None], decision.tradable[:, None]
    y = mean + torch.exp(log_sigma) * noise
    density = -0.5 * noise.square() - log_sigma - 0.5 * math.log(2 * math.pi)
    return from_logits(y, tradable), (density * tradable[..., :-1]).sum(-1)


def dimensions(decision: Decision) -> Tensor:
    """Number of tradable risky names, [B]: the dimension of y."""
    return decision.tradable[..., :-1].sum(-1).float()


def entropy(decision: Decision) -> Tensor:
    """Differential entropy of y, [B]."""
    per_name = decision.log_sigma + 0.5 * math.log(2 * math.pi * math.e)
    return (per_name * decision.tradable[..., :-1]).sum(-1)
