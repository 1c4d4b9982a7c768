"""Five experts under a gate, a trading rate, and the width of the policy.

Expert k starts at its prior portfolio P_k and learns a tilt of it from a feature group of its own:
e_k = softmax(ln(P_k + 1e-3 / n) + 3 tanh(f_k / 3)), f_k zero at the start. The gate mixes them to the aim, and the
policy's mean moves a fraction `rate` of the way from the drifted weights to the aim (Garleanu & Pedersen 2013).
"""

import math

import torch
from torch import Tensor, nn

from finflow.envs.world import State
from finflow.nn.policy import Decision

PRIOR_FLOOR = 1e-3  # spread over n assets, so that a tilt can reach a name that its prior leaves out
TILT_BOUND = 3.0  # of a tilt in log weight: at most a factor e^3
RATE_START = 0.1
LOG_SIGMA = (-5.0, 0.0)
SIGMA_START = 0.3


class Experts(nn.Module):
    """K small networks side by side, each blind outside its feature group.

    Parameters
    ----------
    groups : [K, F + 2] bool, the asset inputs that expert k sees.
    market_dim : M + 2.
    """

    groups: Tensor

    def __init__(self, groups: Tensor, market_dim: int, hidden: int) -> None:
        super().__init__()
        experts, inputs = groups.shape
        self.register_buffer("groups", groups.float(), persistent=False)
        self.weight = nn.Parameter(torch.empty(experts, inputs, hidden))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(inputs))
        self.market = nn.Linear(market_dim, experts * hidden)
        self.out = nn.Parameter(torch.zeros(experts, hidden))

    def forward(self, state: State, dropout: nn.Module) -> Tensor:
        """Expert portfolios [B, K, n] over tradable assets."""
        batch, assets = state.assets.shape[:2]
        experts, _, hidden = self.weight.shape
        masked = self.weight * self.groups[..., None]
        local = state.assets.reshape(batch * assets, -1) @ masked.transpose(0, 1).reshape(-1, experts * hidden)
        context = self.market(state.market)
        mixed = torch.relu(local.view(batch, assets, -1) + context[:, None])
        tilt = torch.einsum("bnkh,kh->bkn", dropout(mixed).view(batch, assets, experts, hidden), self.out)
        start = torch.log(state.priors + PRIOR_FLOOR / assets)
        score = start + TILT_BOUND * torch.tanh(tilt / TILT_BOUND)
        return torch.softmax(score.masked_fill(~state.tradable[:, None], -torch.inf), -1)


class Actor(nn.Module):
    """Maps a state to a `Decision`.

    Parameters
    ----------
    groups : [K, F + 2] bool feature groups of the experts.
    market_dim : M + 2.
    embed_dim, hidden_dim : widths of the width head's asset encoder and of gate and rate.
    dropout : share of hidden units dropped while training.
    """

    def __init__(self, groups: Tensor, market_dim: int, embed_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        experts, inputs = groups.shape
        self.dropout = nn.Dropout(dropout)
        self.experts = Experts(groups, market_dim, embed_dim // 2)
        self.gate = nn.Sequential(nn.Linear(market_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, experts))
        self.rate = nn.Sequential(nn.Linear(market_dim + 2, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 1))
        self.encoder = nn.Linear(inputs, embed_dim)
        self.context = nn.Linear(market_dim, embed_dim)
        self.sigma = nn.Linear(embed_dim, 1)
        for head, bias in ((self.gate[2], 0.0), (self.rate[2], _logit(RATE_START)), (self.sigma, _sigma_logit())):
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, bias)

    def forward(self, state: State, temperature: float = 1.0, keep: Tensor | None = None) -> Decision:
        """Decide in B states.

        Parameters
        ----------
        temperature : of the gate's softmax; above 1 it is softer.
        keep : [B, K] bool, experts left in (expert dropout); all by default.
        """
        experts = self.experts(state, self.dropout)
        return self.combine(state, experts, self.gate_weights(state, temperature, keep))

    def gate_weights(self, state: State, temperature: float = 1.0, keep: Tensor | None = None) -> Tensor:
        """Share of each expert in the aim, [B, K]."""
        scores = self.gate(state.market) / temperature
        if keep is not None:
            scores = scores.masked_fill(~keep, -torch.inf)
        return torch.softmax(scores, -1)

    def combine(self, state: State, experts: Tensor, gate: Tensor) -> Decision:
        """Mix experts [B, K, n] by gate [B, K] to the aim, and move towards it at the trading rate."""
        aim = torch.einsum("bk,bkn->bn", gate, experts)
        held = (state.drifted * state.tradable).float()
        held = held / held.sum(-1, keepdim=True).clamp_min(1e-8)
        gap = (aim - held).abs()
        distance = torch.stack([gap.sum(-1), gap.amax(-1)], -1)
        rate = torch.sigmoid(self.rate(torch.cat([state.market, distance], -1)))
        hidden = torch.relu(self.encoder(state.assets[:, :-1]) + self.context(state.market)[:, None])
        low, high = LOG_SIGMA
        log_sigma = low + (high - low) * torch.sigmoid(self.sigma(self.dropout(hidden)).squeeze(-1))
        return Decision(torch.lerp(held, aim, rate), aim, gate, experts, rate.squeeze(-1), log_sigma, state.tradable)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _sigma_logit() -> float:
    low, high = LOG_SIGMA
    return _logit((math.log(SIGMA_START) - low) / (high - low))
