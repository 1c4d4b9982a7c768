"""Layers that run several actors in one batched product instead of a loop over networks.

A actors of one shape are trained and run in one pass. Their tensors have the actor as the first dimension,
[A, W, ...]; flattened, [A W, ...], the rows of one actor follow each other.
"""

import torch
from torch import Tensor, nn

from finflow.envs.world import State
from finflow.nn.critic import uniform
from finflow.nn.logistic_normal import Decision


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
