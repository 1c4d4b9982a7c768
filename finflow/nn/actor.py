"""Five experts under a gate, or a single one; a trading rate, and the width of the policy.

Expert k starts at its prior portfolio P_k and learns a tilt of it:
e_k = softmax(ln(P_k + 1e-3 / n) + 3 tanh(f_k / 3)), f_k zero at the start. The gate mixes them to the aim, and the
policy's mean moves a fraction `rate` of the way from the drifted weights to the aim (Garleanu & Pedersen 2013).
A single expert starts at the mean of all prior portfolios, and its portfolio is the aim.

Here the network shared by all assets, whose expert k sees a feature group of its own; `mlp.py` has the plain one.
"""

import math
from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from finflow.envs.world import State
from finflow.nn.computing import Computed
from finflow.nn.policy import Decision

PRIOR_FLOOR = 1e-3  # spread over n assets, so that a tilt can reach a name that its prior leaves out
TILT_BOUND = 3.0  # of a tilt in log weight: at most a factor e^3
RATE_START = 0.1
LOG_SIGMA = (-5.0, 0.0)
SIGMA_START = 0.3


class Actor(Computed, ABC):
    """Maps a state to a `Decision`; its gate is the module `gate`, which learns at a rate of its own.

    A single expert has no gate.
    """

    gate: nn.Module | None

    @abstractmethod
    def forward(self, state: State, temperature: float = 1.0, keep: Tensor | None = None) -> Decision:
        """Decide in B states.

        Parameters
        ----------
        temperature : of the gate's softmax; above 1 it is softer.
        keep : [B, K] bool, experts left in (expert dropout); all by default.
        """

    @abstractmethod
    def gate_weights(self, state: State, temperature: float = 1.0, keep: Tensor | None = None) -> Tensor:
        """Share of each expert in the aim, [B, K]."""

    @abstractmethod
    def combine(self, state: State, experts: Tensor, gate: Tensor) -> Decision:
        """Mix experts [B, K, n] by gate [B, K] to the aim, and move towards it at the trading rate."""


def starts(state: State, experts: int) -> Tensor:
    """Portfolios that K experts tilt, [B, K, n]: a prior each, or the mean of all for a single one."""
    return state.priors if experts > 1 else state.priors.mean(1, keepdim=True)


def tilted(state: State, tilt: Tensor) -> Tensor:
    """Priors tilted by [B, K, n] in log weight, over tradable assets, [B, K, n]."""
    start = torch.log(starts(state, tilt.shape[1]) + PRIOR_FLOOR / tilt.shape[-1])
    score = start + TILT_BOUND * torch.tanh(tilt / TILT_BOUND)
    return torch.softmax(score.masked_fill(~state.tradable[:, None], -torch.inf), -1)


def gated(scores: Tensor | None, state: State, temperature: float, keep: Tensor | None) -> Tensor:
    """Softmax of the gate's scores [B, K] over the experts that are kept, [B, K]; ones where there is no gate."""
    if scores is None:
        return torch.ones_like(state.market[:, :1])
    scores = scores / temperature
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    return torch.softmax(scores, -1)


def held_weights(state: State) -> Tensor:
    """What is held of tradable assets, as a portfolio, [B, n]."""
    held = (state.drifted * state.tradable).float()
    return held / held.sum(-1, keepdim=True).clamp_min(1e-8)


def distance(aim: Tensor, held: Tensor) -> Tensor:
    """How far the aim is from what is held: sum and maximum of |aim_i - w-_i|, [B, 2]."""
    gap = (aim - held).abs()
    return torch.stack([gap.sum(-1), gap.amax(-1)], -1)


def bounded_log_sigma(score: Tensor) -> Tensor:
    """ln sigma within its bounds, of any score."""
    low, high = LOG_SIGMA
    return low + (high - low) * torch.sigmoid(score)


def set_start(*, gate: nn.Module, rate: nn.Module, sigma: nn.Module) -> None:
    """Last layers of an actor that has learnt nothing: a uniform gate, a slow rate, sigma .3, in every state."""
    for head, bias in ((gate, 0.0), (rate, _logit(RATE_START)), (sigma, _sigma_logit())):
        assert isinstance(head, nn.Linear)
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, bias)


class Experts(Computed):
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
        return tilted(state, self.recomputed(partial(self._tilt, dropout), state.assets, state.market))

    def _tilt(self, dropout: nn.Module, inputs: Tensor, market: Tensor) -> Tensor:
        batch, assets = inputs.shape[:2]
        experts, _, hidden = self.weight.shape
        masked = self.weight * self.groups[..., None]
        local = inputs.reshape(batch * assets, -1) @ masked.transpose(0, 1).reshape(-1, experts * hidden)
        context = self.market(market)
        mixed = local.view(batch, assets, -1).add_(context[:, None]).relu_()
        return torch.einsum("bnkh,kh->bkn", dropout(mixed).view(batch, assets, experts, hidden), self.out)


class PortfolioActor(Actor):
    """One network shared by all assets: their order and number do not matter.

    Parameters
    ----------
    groups : [K, F + 2] bool feature groups of the experts.
    market_dim : M + 2.
    embed_dim, hidden_dim : widths of the width head's asset encoder and of gate and rate.
    dropout : share of hidden units dropped while training.
    expert_dim : hidden units of each expert; half of `embed_dim` by default.
    """

    def __init__(
        self,
        groups: Tensor,
        market_dim: int,
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
        expert_dim: int | None = None,
    ) -> None:
        super().__init__()
        experts, inputs = groups.shape
        self.dropout = nn.Dropout(dropout)
        self.experts = Experts(groups, market_dim, expert_dim or embed_dim // 2)
        gate = nn.Sequential(nn.Linear(market_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, experts))
        self.gate = gate if experts > 1 else None
        self.rate = nn.Sequential(nn.Linear(market_dim + 2, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 1))
        self.encoder = nn.Linear(inputs, embed_dim)
        self.context = nn.Linear(market_dim, embed_dim)
        self.sigma = nn.Linear(embed_dim, 1)
        set_start(rate=self.rate[2], sigma=self.sigma, gate=gate[2])

    def forward(self, state: State, temperature: float = 1.0, keep: Tensor | None = None) -> Decision:
        """See `Actor`."""
        experts = self.experts(state, self.dropout)
        return self.combine(state, experts, self.gate_weights(state, temperature, keep))

    def gate_weights(self, state: State, temperature: float = 1.0, keep: Tensor | None = None) -> Tensor:
        """Share of each expert in the aim, [B, K]; all of it for a single expert."""
        return gated(None if self.gate is None else self.mixed(self.gate, state.market), state, temperature, keep)

    def combine(self, state: State, experts: Tensor, gate: Tensor) -> Decision:
        """Mix experts [B, K, n] by gate [B, K] to the aim, and move towards it at the trading rate."""
        aim = torch.einsum("bk,bkn->bn", gate, experts)
        held = held_weights(state)
        rate = torch.sigmoid(self.mixed(self.rate, torch.cat([state.market, distance(aim, held)], -1)))
        log_sigma = bounded_log_sigma(self.recomputed(self._width, state.assets[:, :-1], state.market))
        return Decision(torch.lerp(held, aim, rate), aim, gate, experts, rate.squeeze(-1), log_sigma, state.tradable)

    def _width(self, inputs: Tensor, market: Tensor) -> Tensor:
        hidden = self.encoder(inputs).add_(self.context(market)[:, None]).relu_()
        return self.sigma(self.dropout(hidden)).squeeze(-1)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _sigma_logit() -> float:
    low, high = LOG_SIGMA
    return _logit((math.log(SIGMA_START) - low) / (high - low))
