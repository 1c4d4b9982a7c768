"""Advantage-weighted policy extraction (IQL, Kostrikov et al. 2021, eq. 7) for portfolios."""

import math

import torch
from torch import Tensor


def advantage_weight(advantage: Tensor, beta: float, cap: float, normalise: bool) -> Tensor:
    """omega = min(exp(beta A / s), cap), [B] -> [B]; s = 3 std A if `normalise`, else 1 (the paper's).

    beta multiplies, as in the paper (the training guide calls it temperature).
    """
    scale = 3.0 * advantage.std(correction=0).clamp_min(1e-6) if normalise else 1.0
    return torch.exp((beta * advantage / scale).clamp_max(math.log(cap)))


def effective_sample_share(weight: Tensor) -> Tensor:
    """(sum omega)^2 / (B sum omega^2), [B] -> scalar in (0, 1]: how much of the batch the weights still use."""
    return weight.sum().square() / (len(weight) * weight.square().sum())


def weighted_cross_entropy(weight: Tensor, data: Tensor, mean: Tensor) -> Tensor:
    """E[omega CE(w_data, w_bar)]; its minimiser is the weighted mean portfolio.

    Parameters
    ----------
    weight : [B] advantage weights, no gradient.
    data : [B, n] executed weights of the data.
    mean : [B, n] policy mean w_bar.
    """
    return -(weight * (data * torch.log(mean.clamp_min(1e-8))).sum(-1)).mean()
