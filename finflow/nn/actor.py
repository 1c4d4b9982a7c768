"""Actor networks, the policy's distribution, and what networks are built of: precision, layers for several actors.

Expert k starts at its prior portfolio P_k and learns a tilt of it:
e_k = softmax(ln(P_k + 1e-3 / n) + 3 tanh(f_k / 3)), f_k zero at the start. The last prior is e, the benchmark's
portfolio (1/N of tradable names). The gate mixes the experts to the aim, and the policy's mean moves a fraction `rate`
of the way from the drifted weights to the aim (Garleanu & Pedersen 2013). A single expert tilts e, and its portfolio
is the aim. The decisions of A actors are averaged (`averaged`), and so are those of several trained actors.

This file has the network that all assets share, in which each expert sees its own feature groups. `networks.py` has
the plain one.

The policy is logistic-normal over tradable assets, with cash as the reference: y = ln(w_bar_i / w_bar_cash) +
sigma eps, w = softmax([y, 0]). The entropy bonus uses ln pi_y, the Gaussian density of y: the density on the simplex
adds E sum ln w_i, a barrier that drags every policy to 1/N.

Precision and gradient checkpointing change speed and memory, and results only by rounding. A actors of one shape are
trained and run in one pass, without a loop over networks. Their tensors have the actor as the first dimension,
[A, W, ...]; flattened, [A W, ...], the rows of one actor follow each other.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finflow.envs.simulator import State

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


@dataclass(frozen=True)
class Computing:
    """half: what matrices are multiplied in (mixed precision), None is float32; recompute: gradient checkpointing."""

    half: torch.dtype | None = None
    recompute: bool = False


class Computed(nn.Module):
    """A module whose large products follow a `Computing`; parameters and outputs stay float32."""

    computing = Computing()

    def mixed(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`function(*inputs)` in the configured precision, returned as float32."""
        if self.computing.half is None:
            return function(*inputs)
        with torch.autocast(inputs[0].device.type, self.computing.half):
            return function(*inputs).float()

    def recomputed(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """As `mixed`; under gradient checkpointing (Chen et al. 2016) only `inputs` are kept for the backward pass."""
        wanted = self.computing.recompute and torch.is_grad_enabled()
        if not (wanted and any(p.requires_grad for p in self.parameters())):  # a frozen critic may thaw before backward
            return self.mixed(function, *inputs)
        found = checkpoint(self.mixed, function, *inputs, use_reentrant=False)
        assert isinstance(found, Tensor)
        return found

    def compute_as(self, computing: Computing) -> None:
        """Set `computing` in every part of this module."""
        for part in self.modules():
            if isinstance(part, Computed):
                part.computing = computing


def uniform(*shape: int) -> Tensor:
    """Initial weights as in torch's own layers; the inputs are the last dimension but one."""
    bound = 1.0 / math.sqrt(shape[-2])
    return torch.empty(*shape).uniform_(-bound, bound)


class MemberLinear(nn.Module):
    """A linear layer for each of A actors, [A, W, inputs] -> [A, W, outputs]; it starts as torch's own does."""

    def __init__(self, actors: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform(actors, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(actors, 1, outputs).uniform_(-(inputs**-0.5), inputs**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """x W_a + b_a of each actor."""
        return torch.baddbmm(self.bias, x, self.weight)


class MemberNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) with gain and bias for each of A actors, [A, W, width] -> the same."""

    def __init__(self, actors: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(actors, 1, width))
        self.bias = nn.Parameter(torch.zeros(actors, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return torch.addcmul(self.bias, torch.nn.functional.layer_norm(x, x.shape[-1:]), self.weight)


def repeated(state: State, actors: int) -> State:
    """The same B states for each of A actors, [A B, ...]."""
    return State(*(torch.cat([part] * actors) for part in state))


def dealt(state: State, actors: int) -> State:
    """The first A floor(B / A) rows, so that each of A actors gets equally many."""
    return state.at(slice(0, len(state.row) // actors * actors))


def averaged(decision: Decision, actors: int) -> Decision:
    """Decisions of A actors in the same B states, [A B, ...], as the one decision whose mean is the mean of theirs.

    With rates r_a and gates g_ak the rate is r = mean_a r_a, the gate g_k = sum_a r_a g_ak / (A r), and expert k is
    sum_a r_a g_ak e_ak / (A r g_k): mean = (1 - r) w- + r sum_k g_k e_k holds as it does for one actor, so the parts
    that experts have in a trade stay exact. The log widths are averaged.
    """
    rate = decision.rate.view(actors, -1)
    share = decision.gate.view(actors, *rate.shape[1:], -1) * (rate / rate.sum(0))[..., None]
    gate = share.sum(0)
    parts = (share / gate.clamp_min(1e-12))[..., None] * decision.experts.view(*share.shape, -1)
    experts = parts.sum(0)
    # An expert with no share in any gate (or dropped out) is the plain mean over the actors.
    experts = torch.where(gate[..., None] > 1e-12, experts, decision.experts.view(*share.shape, -1).mean(0))

    def mean(part: Tensor) -> Tensor:
        return part.view(actors, -1, part.shape[-1]).mean(0)

    aim = torch.einsum("bk,bkn->bn", gate, experts)
    tradable = decision.tradable[: rate.shape[1]]
    return Decision(mean(decision.mean), aim, gate, experts, rate.mean(0), mean(decision.log_sigma), tradable)


PRIOR_FLOOR = 1e-3  # spread over n assets, so that a tilt can reach a name that its prior leaves out
TILT_BOUND = 3.0  # of a tilt in log weight: at most a factor e^3
RATE_START = 0.1
LOG_SIGMA = (-5.0, 0.0)
SIGMA_START = 0.3


class Actor(Computed, ABC):
    """Maps a state to a `Decision`; its gate is the module `gate`, which learns at a rate of its own.

    A single expert has no gate.

    Attributes
    ----------
    actors : A, networks of one shape whose decisions are averaged.
    confidence : kappa, part of the way from e to the experts that is deployed; 1 while training. It is not a
        parameter: a weights file stores it beside the weights.
    """

    gate: nn.Module | None
    rate: nn.Module

    def __init__(self, actors: int) -> None:
        super().__init__()
        self.actors = actors
        self.confidence = 1.0

    def forward(
        self,
        state: State,
        temperature: float = 1.0,
        keep: Tensor | None = None,
        *,
        gate_of: State | None = None,
        untilted: Tensor | None = None,
        width: bool = True,
    ) -> Decision:
        """Decide in B states, the average of all actors.

        Parameters
        ----------
        temperature : of the gate's softmax; above 1 it is softer.
        keep : [B, K] bool, experts left in (expert dropout); all by default.
        gate_of : states whose gate is taken instead.
        untilted : [B] bool, whether experts stay at their priors.
        width : see `members`.
        """
        if self.actors == 1:
            return self.members(state, temperature, keep, gate_of=gate_of, untilted=untilted, width=width)
        many = repeated(state, self.actors)
        keep = None if keep is None else keep.repeat(self.actors, 1)
        untilted = None if untilted is None else untilted.repeat(self.actors)
        elsewhere = None if gate_of is None else repeated(gate_of, self.actors)
        decision = self.members(many, temperature, keep, gate_of=elsewhere, untilted=untilted, width=width)
        return averaged(decision, self.actors)

    def members(
        self,
        state: State,
        temperature: float = 1.0,
        keep: Tensor | None = None,
        *,
        gate_of: State | None = None,
        untilted: Tensor | None = None,
        width: bool = True,
    ) -> Decision:
        """Decide in A W states, W for each actor, [A W, ...]; without `width` ln sigma is nought, and costs nothing."""
        context = self.encode(state)
        start = benchmark(state) if self.gate is None else state.priors
        experts = tilted(start, state, self.tilts(state, context))
        if untilted is not None:
            priors = start * state.tradable[:, None]
            priors = priors / priors.sum(-1, keepdim=True)
            experts = torch.where(untilted[:, None, None], priors, experts)
        if self.confidence != 1.0:
            experts = torch.lerp(benchmark(state), experts, self.confidence)
        if self.gate is None:
            gate = torch.ones_like(state.market[:, :1])
        else:
            seen = context if gate_of is None else self.encode(gate_of)
            scores = self.mixed(self.gate, seen).flatten(0, 1) / temperature
            if keep is not None:
                scores = scores.masked_fill(~keep, -torch.inf)
            gate = torch.softmax(scores, -1)
        aim = torch.einsum("bk,bkn->bn", gate, experts)
        held = held_weights(state)
        gap = distance(aim, held).view(self.actors, -1, 2)
        rate = torch.sigmoid(self.mixed(self.rate, torch.cat([context, gap], -1))).flatten(0, 1)
        if width:
            low, high = LOG_SIGMA
            log_sigma = low + (high - low) * torch.sigmoid(self.widths(state, context))
        else:
            log_sigma = aim.new_zeros(len(aim), aim.shape[-1] - 1)
        return Decision(torch.lerp(held, aim, rate), aim, gate, experts, rate.squeeze(-1), log_sigma, state.tradable)

    def whole(self) -> Self:
        """The same weights, with the whole tilt deployed."""
        found = copy(self)
        found.confidence = 1.0
        return found

    def by_actor(self, part: Tensor) -> Tensor:
        """[A W, ...] -> [A, W, ...]."""
        return part.view(self.actors, -1, *part.shape[1:])

    @abstractmethod
    def encode(self, state: State) -> Tensor:
        """Inputs of gate and rate in A W states, [A, W, C]."""

    @abstractmethod
    def tilts(self, state: State, context: Tensor) -> Tensor:
        """Tilts f_k of the experts in log weight, [A W, K, n]."""

    @abstractmethod
    def widths(self, state: State, context: Tensor) -> Tensor:
        """Scores of ln sigma, [A W, d]."""


def benchmark(state: State) -> Tensor:
    """e, the portfolio of the benchmark, [B, 1, n]."""
    return state.priors[:, -1:]


def tilted(start: Tensor, state: State, tilt: Tensor) -> Tensor:
    """Portfolios `start` tilted by [B, K, n] in log weight, over tradable assets, [B, K, n]."""
    score = torch.log(start + PRIOR_FLOOR / tilt.shape[-1]) + TILT_BOUND * torch.tanh(tilt / TILT_BOUND)
    return torch.softmax(score.masked_fill(~state.tradable[:, None], -torch.inf), -1)


def held_weights(state: State) -> Tensor:
    """Holdings of tradable assets, rescaled to a portfolio, [B, n]."""
    held = (state.drifted * state.tradable).float()
    return held / held.sum(-1, keepdim=True).clamp_min(1e-8)


def distance(aim: Tensor, held: Tensor) -> Tensor:
    """Distance from the holdings to the aim: sum and maximum of |aim_i - w-_i|, [B, 2]."""
    gap = (aim - held).abs()
    return torch.stack([gap.sum(-1), gap.amax(-1)], -1)


def set_start(*, gate: nn.Module | None, rate: nn.Module, sigma: nn.Module) -> None:
    """Initialise the last layers: in every state a uniform gate, a slow rate and sigma .3."""
    low, high = LOG_SIGMA
    part = (math.log(SIGMA_START) - low) / (high - low)
    for head, bias in ((gate, 0.0), (rate, _logit(RATE_START)), (sigma, _logit(part))):
        if head is not None:
            assert isinstance(head, MemberLinear)
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, bias)


def perceptron(actors: int, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer for each of A actors."""
    return nn.Sequential(MemberLinear(actors, inputs, hidden), nn.GELU(), MemberLinear(actors, hidden, outputs))


class Experts(Computed):
    """K small networks side by side for each of A actors, each blind outside its feature group.

    Parameters
    ----------
    groups : [K, F + 2] bool, the asset inputs that expert k sees.
    market_dim : M + 2.
    """

    groups: Tensor
    own: Tensor

    def __init__(self, actors: int, groups: Tensor, market_dim: int, hidden: int) -> None:
        super().__init__()
        experts, inputs = groups.shape
        self.register_buffer("groups", groups.float(), persistent=False)
        self.register_buffer("own", torch.eye(experts)[:, None], persistent=False)
        self.weight = nn.Parameter(torch.empty(actors, inputs, experts, hidden))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(inputs))
        self.market = MemberLinear(actors, market_dim, experts * hidden)
        self.out = nn.Parameter(torch.zeros(actors, experts, hidden))

    def forward(self, inputs: Tensor, market: Tensor, dropout: nn.Module) -> Tensor:
        """Tilts [A, W, n, K] of assets [A, W, n, F + 2] and market [A, W, M + 2]."""
        actors, rows, assets, features = inputs.shape
        masked = (self.weight * self.groups.T[..., None]).flatten(2)
        local = torch.bmm(inputs.reshape(actors, rows * assets, features), masked)
        context = self.market(market)
        mixed = local.view(actors, rows, assets, -1).add_(context[:, :, None]).relu_()
        # Every unit reaches its own expert alone: as one product it costs less than K small ones.
        out = (self.out[..., None] * self.own).flatten(1, 2)
        return torch.bmm(dropout(mixed).flatten(1, 2), out).view(actors, rows, assets, -1)


class PortfolioActor(Actor):
    """One network shared by all assets: their order and number do not matter.

    Parameters
    ----------
    groups, market_dim : see `Experts`.
    embed_dim, hidden_dim : widths of the width head's asset encoder and of gate and rate.
    dropout : share of hidden units dropped while training.
    expert_dim : hidden units of each expert.
    """

    def __init__(
        self,
        actors: int,
        groups: Tensor,
        market_dim: int,
        embed_dim: int,
        hidden_dim: int,
        dropout: float,
        expert_dim: int,
    ) -> None:
        super().__init__(actors)
        experts, inputs = groups.shape
        self.dropout = nn.Dropout(dropout)
        self.experts = Experts(actors, groups, market_dim, expert_dim)
        gate = perceptron(actors, market_dim, hidden_dim, experts)
        self.gate = gate if experts > 1 else None
        self.rate = perceptron(actors, market_dim + 2, hidden_dim, 1)
        self.encoder = MemberLinear(actors, inputs, embed_dim)
        self.context = MemberLinear(actors, market_dim, embed_dim)
        self.sigma = MemberLinear(actors, embed_dim, 1)
        set_start(rate=self.rate[2], sigma=self.sigma, gate=gate[2])

    def encode(self, state: State) -> Tensor:
        """The market, and what the portfolio needs beyond it."""
        return self.by_actor(state.market)

    def tilts(self, state: State, context: Tensor) -> Tensor:
        """See `Actor`."""
        found = self.recomputed(partial(self.experts, dropout=self.dropout), self.by_actor(state.assets), context)
        return found.flatten(0, 1).transpose(1, 2)

    def widths(self, state: State, context: Tensor) -> Tensor:
        """See `Actor`."""
        return self.recomputed(self._width, self.by_actor(state.assets[:, :-1]), context).flatten(0, 1)

    def _width(self, inputs: Tensor, market: Tensor) -> Tensor:
        actors, rows, assets, _ = inputs.shape
        local = self.encoder(inputs.reshape(actors, rows * assets, -1)).view(actors, rows, assets, -1)
        hidden = local.add_(self.context(market)[:, :, None]).relu_()
        return self.sigma(self.dropout(hidden).flatten(1, 2)).view(actors, rows, assets)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


class ActorEnsemble(nn.Module):
    """Decisions of A actors as one `Decision` in float64, whose gate and experts stay exact (`averaged`).

    Parameters
    ----------
    entries : rows at which a window is entered. Holding nothing but cash there, every actor buys its whole aim, so
        that the aims are averaged alike; elsewhere an actor counts by its trading rate.
    """

    entries: Tensor

    def __init__(self, actors: Sequence[Actor], entries: Iterable[int] = ()) -> None:
        super().__init__()
        self.actors = nn.ModuleList(actors)
        self._actors = list(actors)
        rows = torch.tensor(sorted(entries), dtype=torch.int64, device=next(actors[0].parameters()).device)
        self.register_buffer("entries", rows, persistent=False)

    @property
    def gate(self) -> nn.Module | None:
        """That of the first actor: all have one, or none has."""
        return self._actors[0].gate

    def whole(self) -> "ActorEnsemble":
        """See `Actor.whole`."""
        return ActorEnsemble([actor.whole() for actor in self._actors], self.entries.tolist())

    def forward(self, state: State, **settings: Any) -> Decision:
        """Decide in B states; `settings` are those of `Actor.forward`."""
        found = [actor(state, **settings) for actor in self._actors]
        many = Decision(*(_laid(parts) for parts in zip(*found, strict=True)))
        entered = torch.isin(state.row, self.entries) & (state.drifted[:, -1] >= 1.0)
        rate = torch.where(entered.repeat(len(found)), 1.0, many.rate)
        return averaged(many._replace(rate=rate), len(found))


def _laid(parts: Sequence[Tensor]) -> Tensor:
    """[B, ...] of each actor, laid flat, [A B, ...]; weights in float64, which sum to 1 within 1e-16."""
    flat = torch.cat(list(parts))
    return flat.double() if flat.is_floating_point() else flat
