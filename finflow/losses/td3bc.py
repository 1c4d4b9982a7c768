"""TD3+BC (Fujimoto & Gu 2021) for portfolios: its actor's loss, and the smoothed action of its target."""

import torch
from torch import Tensor

from finflow.nn.logistic_normal import from_logits, logits


def smoothed(mean: Tensor, tradable: Tensor, noise: Tensor, clip: float) -> Tensor:
    """Target policy smoothing (TD3, Fujimoto et al. 2018, eq. 14) in logits: y + clip(noise, -clip, clip).

    Parameters
    ----------
    mean, tradable : [B, n] the target policy's portfolio, and what can be traded.
    noise : [B, d] Gaussian; it moves a name's odds against cash, so that the result stays on the simplex.

    Returns
    -------
    [B, n] portfolios over tradable assets.
    """
    return from_logits(logits(mean) + noise.clamp(-clip, clip), tradable)


def kl_divergence(data: Tensor, mean: Tensor) -> Tensor:
    """KL(data || mean), [B, n] each -> [B]; 0 where the data are 0, the mean floored at 1e-8.

    It replaces the paper's squared distance, which between two portfolios is about .002 and would vanish.
    """
    return (torch.special.xlogy(data, data) - data * torch.log(mean.clamp_min(1e-8))).sum(-1)


def td3bc_actor_loss(q: Tensor, cloning: Tensor, alpha: float) -> Tensor:
    """-lambda E[q] + E[cloning], lambda = alpha / E|q| without gradient (eqs. 3 and 5), [B] each -> scalar."""
    scale = alpha / q.detach().abs().mean().clamp_min(1e-6)
    return cloning.mean() - scale * q.mean()
