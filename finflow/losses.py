"""Loss functions: pure functions of tensors, one equation per function.

- Expectile regression (Newey & Powell 1987; IQL, Kostrikov et al. 2021, eq. 5).
- Quantile Huber regression (QR-DQN, Dabney et al. 2018, eq. 10) and statistics of a critic's atoms.
- Conservative Q-learning (Kumar et al. 2020, eq. 4) over sampled portfolios, with Cal-QL's bound.
- Advantage-weighted policy extraction (IQL, eq. 7) for portfolios.
- TD3+BC (Fujimoto & Gu 2021) for portfolios: its actor's loss, and the smoothed action of its target.
- Soft actor-critic (Haarnoja et al. 2018) for logistic-normal portfolios: actor, temperature, anchor, balance.
"""

import math
from typing import Any

import torch
from torch import Tensor

from finflow.nn.actor import from_logits, logits


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(u < 0)| u^2 over u = target - prediction, [B] -> scalar."""
    weight = torch.where(difference < 0, 1.0 - expectile, expectile)
    return (weight * difference.square()).mean()


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
    """Sum over predicted atoms, mean over target atoms and over the batch, scalar.

    If the atoms spread over less than about 10 kappa, the Huber zone covers them and they fit expectiles, not
    quantiles; learners therefore use `quantile_loss`.

    Parameters
    ----------
    atoms : [..., N] predicted quantiles.
    target : [..., N'] samples of the target distribution, no gradient.
    kappa : half-width of the quadratic zone.
    """
    return _QuantileHuber.apply(atoms, target, kappa)  # pyright: ignore[reportReturnType]


def atom_spread(atoms: Tensor) -> Tensor:
    """s_Q, standard deviation of the atoms [..., N] averaged over all rows, scalar without gradient."""
    return atoms.detach().std(-1, correction=0).mean()


def quantile_loss(atoms: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """`quantile_huber_loss` with kappa = s_Q / 4, shapes as there.

    A wider zone fits expectiles, not quantiles: at kappa = 1 the CVaR of the worst quarter of N(0, 1) comes out at
    -.98, at s_Q / 4 at -1.18, at s_Q / 10 at -1.22; 32 midpoint quantiles have -1.26. A narrower one learns the mean
    more slowly: on Kelly's market, in equal time, s_Q / 10 reached 60 % of the best growth and s_Q / 4 88 %. `scale` is
    s_Q, see `atom_spread`; of all processes where several share a batch.
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


def cql_penalty(q_sampled: Tensor, q_data: Tensor, floor: Tensor | None = None) -> Tensor:
    """LSE_a q(s, a) - ln(A + 1) - q(s, a_data), the data action among the actions of the log-sum-exp.

    Without that action the atoms drift for ever: the gradient of the quantile loss is at most 1 while the penalty's
    is constant.

    With a `floor` (Cal-QL, Nakamoto et al. 2023), samples that are already below it are not pushed down. Cal-QL still
    pushes the data's action up for them, and bootstrapping turns that into a drift of every value (measured: +1.6
    standard deviations of the atoms in 600 updates). Here such a sample takes part in no gradient at all, so that
    what is pushed up equals what is pushed down.

    Parameters
    ----------
    q_sampled : [B, A, C] mean values of sampled actions, C critics.
    q_data : [B, C] mean values of the data's action.
    floor : [B, A, C] reference values, no gradient; -inf where a sample has none.

    Returns
    -------
    [B] penalty, mean over critics: as in the quantile loss, so that push and pull weigh the same for any C.
    """
    if floor is not None:
        low = q_sampled < floor
        q_sampled = torch.where(low, floor, q_sampled)
        share = torch.softmax(torch.cat([q_sampled, q_data[:, None]], 1).detach(), 1)[:, :-1]
        withheld = (share * low).sum(1)
        # The log-sum-exp pushes q_data up by 1 - p_data; of that, the share of masked samples is taken back.
        q_back = withheld * (q_data - q_data.detach())
    else:
        q_back = torch.zeros_like(q_data)
    everything = torch.cat([q_sampled, q_data[:, None]], 1)
    soft = torch.logsumexp(everything, 1) - math.log(everything.shape[1])
    return (soft - q_data + q_back).mean(-1)


NETWORK_GAIN = 5.0
"""A gradient moves a network this many times as far as a table, since a network generalises over actions (measured)."""


def scaled_alpha(alpha: float, atoms: int, advantage_std: float, atom_std: float) -> float:
    """alpha_eff = (alpha / 10) N_q s_A / (2.5 s_Q gain).

    In a table, a constant push of alpha / N_q an atom against a pull of (atom density x error) moves q by about
    2.5 alpha s_Q / N_q; a network moves `NETWORK_GAIN` times as far. On this scale an alpha of 10 holds an
    unsupported action about one standard deviation of advantage down, whatever the reward's scale.
    """
    return alpha / 10.0 * atoms * advantage_std / (2.5 * max(atom_std, 1e-6) * NETWORK_GAIN)


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
    """E[omega CE(w_data, w_bar)], a scalar; its minimiser is the weighted mean portfolio.

    Parameters
    ----------
    weight : [B] advantage weights, no gradient.
    data : [B, n] executed weights of the data.
    mean : [B, n] policy mean w_bar.
    """
    return -(weight * (data * torch.log(mean.clamp_min(1e-8))).sum(-1)).mean()


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
