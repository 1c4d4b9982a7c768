"""Networks on a flat state and a box of actions, behind the interface that FinFlow's losses ask of a critic.

FinFlow's own networks speak of portfolios; d3rlpy's of boxes. These let both judge the same transitions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

BOUNDS_OF_STATE = (-20.0, 2.0)  # of log sigma where it is a function of the state
BOUNDS_OF_PARAMETER = (-5.0, 2.0)  # and where it is one parameter an action


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class BoxCritic(nn.Module):
    """Twin quantile critics and a state value, each a network of its own.

    `embed` passes the state [B, S] on; `atoms` takes actions [B, A, a] and gives [B, A, 2, N]; `value` gives [B].
    """

    def __init__(self, state: int, action: int, hidden: int, atoms: int) -> None:
        super().__init__()
        self.twins = nn.ModuleList(mlp(state + action, hidden, atoms) for _ in range(2))
        self.v = mlp(state, hidden, 1)

    def embed(self, state: Tensor) -> Tensor:
        return state

    def atoms(self, embedding: Tensor, actions: Tensor) -> Tensor:
        state = embedding[:, None].expand(-1, actions.shape[1], -1)
        pair = torch.cat([state, actions], -1)
        return torch.stack([twin(pair) for twin in self.twins], -2)

    def value(self, embedding: Tensor) -> Tensor:
        return self.v(embedding).squeeze(-1)

    def value_of(self, state: Tensor) -> Tensor:
        return self.value(self.embed(state))


class Gaussian(NamedTuple):
    """Before the squashing: mean [B, a] and log sigma [B, a]."""

    mean: Tensor
    log_sigma: Tensor


class TanhGaussian(nn.Module):
    """A policy on [-1, 1]^a.

    `density` treats tanh(mean) as the mean of a Gaussian of actions (advantage-weighted regression does);
    `sample` squashes a Gaussian draw and corrects its density (soft actor-critic does).

    Parameters
    ----------
    free_sigma : log sigma is one parameter an action, else it is a function of the state.
    """

    def __init__(self, state: int, action: int, hidden: int, free_sigma: bool) -> None:
        super().__init__()
        self.body = mlp(state, hidden, hidden)[:-1]
        self.mean = nn.Linear(hidden, action)
        self.sigma = nn.Parameter(torch.zeros(1, action)) if free_sigma else nn.Linear(hidden, action)

    def forward(self, state: Tensor) -> Gaussian:
        hidden = self.body(state)
        mean = self.mean(hidden)
        if isinstance(self.sigma, nn.Linear):
            return Gaussian(mean, self.sigma(hidden).clamp(*BOUNDS_OF_STATE))
        low, high = BOUNDS_OF_PARAMETER
        return Gaussian(mean, (low + (high - low) * torch.sigmoid(self.sigma)).expand_as(mean))


def density(policy: Gaussian, action: Tensor) -> Tensor:
    """ln N(action; tanh mean, sigma), [B, a] -> [B]."""
    z = (action - torch.tanh(policy.mean)) * torch.exp(-policy.log_sigma)
    return (-0.5 * z.square() - policy.log_sigma - 0.5 * math.log(2 * math.pi)).sum(-1)


def sample(policy: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squashed actions [..., B, a] of standard normal `noise` [..., B, a], and their ln pi [..., B]."""
    raw = policy.mean + torch.exp(policy.log_sigma) * noise
    gaussian = -0.5 * noise.square() - policy.log_sigma - 0.5 * math.log(2 * math.pi)
    log_slope = 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))  # ln(1 - tanh^2), stable
    return torch.tanh(raw), (gaussian - log_slope).sum(-1)
