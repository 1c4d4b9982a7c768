"""Critics: the interface that all share, and the portfolio critic.

The portfolio critic embeds a portfolio as the weighted sum of its assets' embeddings. All assets share one encoder, so
their order and number do not matter, and valuing another action in the same state costs one small product and a small
head.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from finflow.envs.world import State
from finflow.nn.layers import Computed, uniform


class Embedding(NamedTuple):
    """A state, encoded once: assets [B, n, E], context [B, C], drifted [B, n] float32."""

    assets: Tensor
    context: Tensor
    drifted: Tensor


class Critic(Computed, ABC):
    """Twin quantile critics and a state value; a state is encoded once for any number of actions.

    Attributes
    ----------
    out : [2, H, N_q] last layer of both heads, with `out_bias` of 2 x N_q numbers.
    """

    out: nn.Parameter
    out_bias: nn.Parameter

    @abstractmethod
    def embed(self, state: State) -> tuple[Tensor, ...]:
        """Encode B states: tensors whose first dimension is B."""

    @abstractmethod
    def hidden(self, *inputs: Tensor) -> list[Tensor]:
        """Last hidden layer of each head: the parts of an embedding and weights [B, A, n] -> 2 x [B A, H]."""

    @abstractmethod
    def value(self, embedding: tuple[Tensor, ...]) -> Tensor:
        """V(s) of the state and the portfolio that is held, [B]."""

    @abstractmethod
    def value_of(self, state: State) -> Tensor:
        """V(s) [B] alone, cheaper than `embed` and `value`."""

    def atoms(self, embedding: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        """Quantiles of both critics for A actions a state, weights [B, A, n] -> [B, A, 2, N_q]."""
        found = self.recomputed(self._atoms, *embedding, weights)
        return found.view(2, *weights.shape[:2], -1).permute(1, 2, 0, 3)

    def values(self, embedding: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        """Means of the quantiles, [B, A, n] -> [B, A, 2], at less cost: the last layer is averaged beforehand."""
        return self.recomputed(self._values, *embedding, weights).view(2, *weights.shape[:2]).permute(1, 2, 0)

    def _atoms(self, *inputs: Tensor) -> Tensor:
        return _each(self.out_bias.view(2, -1), self.hidden(*inputs), self.out)

    def _values(self, *inputs: Tensor) -> Tensor:
        bias, out = self.out_bias.view(2, -1), self.out
        return _each(bias.mean(-1, keepdim=True), self.hidden(*inputs), out.mean(-1, keepdim=True))


class PortfolioCritic(Critic):
    """Twins and value on one encoder that all assets share.

    Parameters
    ----------
    asset_dim : F + 2.
    market_dim : M + 2.
    embed_dim, hidden_dim : widths of the asset embedding and of the heads.
    atoms : N_q.
    layer_norm : normalise the first hidden layer of the heads.
    """

    def __init__(
        self, asset_dim: int, market_dim: int, embed_dim: int, hidden_dim: int, atoms: int, layer_norm: bool
    ) -> None:
        super().__init__()
        self.local = nn.Linear(asset_dim, 2 * embed_dim)
        self.market = nn.Linear(market_dim, 2 * embed_dim)
        self.encode = nn.Linear(2 * embed_dim, embed_dim)
        context = embed_dim + market_dim
        self.state_norm = nn.LayerNorm(context)
        # Twin heads as batched matrices. The first layer is split: one part runs per state, the other per action.
        self.from_state = nn.Linear(context, 2 * hidden_dim)
        self.from_action = nn.Parameter(uniform(2, embed_dim + 2, hidden_dim))
        self.norm_weight = nn.Parameter(torch.ones(2, hidden_dim)) if layer_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(2, hidden_dim)) if layer_norm else None
        self.out = nn.Parameter(uniform(2, hidden_dim, atoms))
        self.out_bias = nn.Parameter(torch.zeros(2, atoms))
        self.value_head = nn.Sequential(
            nn.Linear(context + embed_dim, hidden_dim), normalised(hidden_dim, layer_norm), nn.GELU(),
            nn.Linear(hidden_dim, 1),
        )  # fmt: skip

    def embed(self, state: State) -> Embedding:
        """Encode B states."""
        assets = self.recomputed(self._assets, state.assets, state.market)
        share = state.tradable.float()
        pooled = torch.einsum("bn,bne->be", share / share.sum(-1, keepdim=True), assets)
        context = self.state_norm(torch.cat([pooled, state.market], -1))
        return Embedding(assets, context, state.drifted.float())

    def _assets(self, inputs: Tensor, market: Tensor) -> Tensor:
        return self.encode(self.local(inputs).add_(self.market(market)[:, None]).relu_())

    def hidden(self, *inputs: Tensor) -> list[Tensor]:
        """See `Critic`."""
        assets, context, drifted, weights = inputs
        portfolio = torch.bmm(weights, assets)
        turnover = (weights[..., :-1] - drifted[:, None, :-1]).abs().sum(-1, keepdim=True)
        concentration = weights.square().sum(-1, keepdim=True)
        action = torch.cat([portfolio, turnover, concentration], -1).flatten(0, 1)
        return first_layer(self.from_state(context), action, self.from_action, self.norm_weight, self.norm_bias)

    def value(self, embedding: tuple[Tensor, ...]) -> Tensor:
        """See `Critic`."""
        assets, context, drifted = embedding
        held = torch.einsum("bn,bne->be", drifted, assets)
        return self.mixed(self.value_head, torch.cat([context, held], -1)).squeeze(-1)

    def value_of(self, state: State) -> Tensor:
        """See `Critic`."""
        return self.value(self.embed(state))


def normalised(width: int, wanted: bool) -> nn.Module:
    """A LayerNorm, or nothing."""
    return nn.LayerNorm(width) if wanted else nn.Identity()


def first_layer(
    state: Tensor, action: Tensor, weight: Tensor, gain: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """ReLU of W_s s + W_a a of each head: [B, 2 H], [B A, C] and [2, C, H] -> 2 x [B A, H].

    Normalised where there are a gain and a bias, 2 H numbers each.

    The state's part is broadcast over its actions: a copy for each would cost more than the product. Each head is
    normalised by itself with gain and bias inside, so that the backward pass is one operation, not five.
    """
    batch, width = len(state), weight.shape[-1]
    mixed = torch.matmul(action, weight).view(2, batch, -1, width) + state.view(batch, 2, 1, width).transpose(0, 1)
    if gain is None or bias is None:
        return list(mixed.relu_().view(2, -1, width).unbind())
    heads = zip(mixed.view(2, -1, width), gain.view(2, width), bias.view(2, width), strict=True)
    return [torch.nn.functional.layer_norm(part, (width,), g, b).relu_() for part, g, b in heads]


def _each(bias: Tensor, hidden: list[Tensor], weight: Tensor) -> Tensor:
    """A linear layer of each head: 2 x N, 2 x [B A, H] and [2, H, N] -> [2, B A, N]."""
    return torch.stack([torch.addmm(b, part, w) for b, part, w in zip(bias, hidden, weight, strict=True)])
