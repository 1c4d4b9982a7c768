"""Conservative Q-learning (Kumar et al. 2020, eq. 4) over sampled portfolios, with Cal-QL's bound."""

import math

import torch
from torch import Tensor


def cql_penalty(q_sampled: Tensor, q_data: Tensor) -> Tensor:
    """Mean of LSE_a q(s, a) - ln(A + 1) - q(s, a_data), the data action among the actions of the log-sum-exp.

    Without it the atoms drift for ever: the quantile loss pulls with at most 1, the penalty pushes with a constant.

    Parameters
    ----------
    q_sampled : [B, A, C] mean values of sampled actions, C critics.
    q_data : [B, C] mean values of the data's action.

    Returns
    -------
    [B] penalty, mean over critics: like the quantile loss, so that the push on an atom is alpha / N_q of its pull.
    """
    everything = torch.cat([q_sampled, q_data[:, None]], 1)
    soft = torch.logsumexp(everything, 1) - math.log(everything.shape[1])
    return (soft - q_data).mean(-1)


def calibrate(q_policy: Tensor, value: Tensor) -> Tensor:
    """Bound values of the policy's samples below by a reference value (Cal-QL, Nakamoto et al. 2023, eq. 4.1).

    q_policy [B, A, C], value [B] (no gradient) -> [B, A, C].
    """
    return torch.maximum(q_policy, value[:, None, None])


def scaled_alpha(alpha: float, atoms: int, advantage_std: float, atom_std: float) -> float:
    """alpha_eff = (alpha / 10) N_q s_A / (2.5 s_Q).

    A constant push of alpha / N_q an atom against a pull of (atom density x error) moves q by about
    2.5 alpha s_Q / N_q; on this scale an alpha of 10 holds an unsupported action one standard deviation of
    advantage down, whatever the reward's scale.
    """
    return alpha / 10.0 * atoms * advantage_std / (2.5 * max(atom_std, 1e-6))
