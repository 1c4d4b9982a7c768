"""Quantile Huber regression (QR-DQN, Dabney et al. 2018, eq. 10) and statistics of a critic's atoms."""

from typing import Any

import torch
from torch import Tensor

ZONE = 0.25  # kappa over s_Q
LEAST_ZONE = 1e-2
"""Least kappa of `quantile_loss`, in units of the reward: atoms that have not spread yet get a smooth gradient."""


def midpoints(count: int, device: torch.device | None = None) -> Tensor:
    """Quantile levels tau_j = (j - 1/2) / N_q, [N_q]."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count


class _QuantileHuber(torch.autograd.Function):
    """Loss and its gradient in closed form: the [.., N, N'] table is walked once, without autograd."""

    @staticmethod
    def forward(ctx: Any, atoms: Tensor, target: Tensor, kappa: float) -> Tensor:
        # Contiguous: otherwise the sums below would copy the tables of stacked heads first.
        error = target[..., None, :] - atoms.contiguous()[..., :, None]
        clipped = error.clamp(-kappa, kappa)
        lean = midpoints(atoms.shape[-1], atoms.device).to(atoms.dtype) - 0.5
        # |tau - 1(u < 0)| c = c / 2 + (tau - 1/2) |c|: the gradient of each pair.
        pull = clipped.abs().mul_(lean[:, None]).add_(clipped, alpha=0.5)
        rows = atoms[..., 0].numel()
        ctx.save_for_backward(pull.mean(-1) / (-kappa * rows))
        # Huber is clipped (u - clipped / 2) / kappa: u^2 / 2 kappa inside, |u| - kappa / 2 outside.
        rest = error.sub_(clipped, alpha=0.5)
        return torch.dot(pull.flatten(), rest.flatten()) / (kappa * target.shape[-1] * rows)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad[0] * gradient, None, None


def quantile_huber_loss(atoms: Tensor, target: Tensor, kappa: float = 1.0) -> Tensor:
    """Sum over predicted atoms, mean over target atoms and over the batch.

    If the atoms spread over less than about 10 kappa, the Huber zone covers them and they fit expectiles, not
    quantiles; learners therefore use `quantile_loss`.

    Parameters
    ----------
    atoms : [..., N] predicted quantiles.
    target : [..., N'] samples of the target distribution, no gradient.
    kappa : half-width of the quadratic zone.

    Returns
    -------
    Scalar.
    """
    return _QuantileHuber.apply(atoms, target, kappa)  # pyright: ignore[reportReturnType]


def atom_spread(atoms: Tensor) -> Tensor:
    """s_Q, standard deviation of the atoms [..., N] averaged over all rows, scalar without gradient."""
    return atoms.detach().std(-1, correction=0).mean()


def quantile_loss(atoms: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """`quantile_huber_loss` with kappa = s_Q / 4, shapes as there.

    A wider zone fits expectiles, not quantiles: at kappa = 1 the CVaR of the worst quarter of N(0, 1) comes out at
    -.98, at s_Q / 4 at -1.18, at s_Q / 10 at -1.22; 32 midpoint quantiles have -1.26. A narrower one learns the mean
    more slowly: on Kelly's market, in equal time, s_Q / 10 reached 60 % of the best growth and s_Q / 4 88 %.

    Parameters
    ----------
    scale : s_Q, see `atom_spread`; of all processes where several share a batch.
    """
    # Dividing atoms and target by kappa keeps kappa a tensor, so that the loss never waits for the device.
    kappa = (scale * ZONE).clamp_min(LEAST_ZONE)
    return kappa * quantile_huber_loss(atoms / kappa, target / kappa)


def lower_mean(atoms: Tensor) -> Tensor:
    """Atoms of the twin with the lower mean, [B, ..., 2, N] -> [B, ..., N]: one whole distribution, not a mixture."""
    lower = atoms.mean(-1).argmin(-1)
    index = lower[..., None, None].expand(*lower.shape, 1, atoms.shape[-1])
    return atoms.gather(-2, index).squeeze(-2)


def truncated_mixture(atoms: Tensor, dropped: int) -> Tensor:
    """Atoms of all C critics as one distribution without its top `dropped` C (TQC, Kuznetsov et al. 2020, sec. 3).

    Sorted, [..., C, N] -> [..., C (N - dropped)]. With `dropped` 0 it is the whole mixture.
    """
    critics, count = atoms.shape[-2:]
    return atoms.flatten(-2).sort(-1).values[..., : critics * (count - dropped)]


def cvar(atoms: Tensor, level: float) -> Tensor:
    """Mean of the worst `level` of equally likely atoms, the last one counted in part, [..., N] -> [...]."""
    count = atoms.shape[-1]
    mass = torch.arange(count, device=atoms.device, dtype=atoms.dtype)
    weight = (level * count - mass).clamp(0.0, 1.0)
    return (atoms.sort(-1).values * weight).sum(-1) / (level * count)
