"""What networks are built of: the policy's distribution, precision, and layers that run several actors at once.

The policy is logistic-normal over tradable assets, with cash as the reference: y = ln(w_bar_i / w_bar_cash) +
sigma eps, w = softmax([y, 0]). The entropy bonus uses ln pi_y, the Gaussian density of y: the density on the simplex
adds E sum ln w_i, a barrier that drags every policy to 1/N.

Precision and gradient checkpointing change speed and memory, and results only by rounding. A actors of one shape are
trained and run in one pass, without a loop over networks. Their tensors have the actor as the first dimension,
[A, W, ...]; flattened, [A W, ...], the rows of one actor follow each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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
        if not (self.computing.recompute and self._learns()):  # a frozen critic may thaw before its backward pass
            return self.mixed(function, *inputs)
        found = checkpoint(self.mixed, function, *inputs, use_reentrant=False)
        assert isinstance(found, Tensor)
        return found

    def _learns(self) -> bool:
        return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())

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
    return State(*(part.repeat(actors, *[1] * (part.dim() - 1)) for part in state))


def dealt(state: State, actors: int) -> State:
    """The first A floor(B / A) rows, so that each of A actors gets equally many."""
    rows = len(state.row) // actors * actors
    return State(*(part[:rows] for part in state))


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
