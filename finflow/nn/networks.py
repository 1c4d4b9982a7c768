"""Critics, plain networks, and all networks of a run from one specification: phase 2 loads what phase 1 trained.

The portfolio critic embeds a portfolio as the weighted sum of its assets' embeddings. All assets share one encoder, so
their order and number do not matter, and valuing another action in the same state costs one small product and a small
head.

`algo.network.kind=mlp` are plain networks on the flat state, two hidden layers each. They identify assets by position:
another universe, or the same in another order, needs other weights.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from finflow.data.features import group_of
from finflow.data.market import Market
from finflow.envs.simulator import PATH_SCALARS, State
from finflow.nn.actor import Actor, Computed, Computing, MemberLinear, MemberNorm, PortfolioActor, set_start, uniform
from finflow.plugins import chosen
from finflow.schema.sections import Network, OfflineAlgorithm, OnlineAlgorithm
from finflow.seeding import stream_seed


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

    def value_of(self, state: State) -> Tensor:
        """V(s) [B] alone; a critic may know a cheaper way."""
        return self.value(self.embed(state))

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
    asset_dim, market_dim, atoms : F + 2, M + 2 and N_q.
    embed_dim, hidden_dim : widths of the asset embedding and of the heads.
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


def normalised(width: int, wanted: bool) -> nn.Module:
    """A LayerNorm, or nothing."""
    return nn.LayerNorm(width) if wanted else nn.Identity()


def first_layer(
    state: Tensor, action: Tensor, weight: Tensor, gain: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """ReLU of W_s s + W_a a of each head: [B, 2 H], [B A, C] and [2, C, H] -> 2 x [B A, H].

    Normalised where there are a gain and a bias, 2 H numbers each.

    The state's part is broadcast over its actions: a copy for each would cost more than the product. Each head is
    computed by itself, with the addition inside the product where a state has one action, and with gain and bias
    inside the normalisation.
    """
    batch, width = len(state), weight.shape[-1]
    heads = [
        torch.addmm(part, action, by)
        if len(action) == batch
        else torch.mm(action, by).view(batch, -1, width).add_(part[:, None]).view(-1, width)
        for part, by in zip(state.view(batch, 2, width).unbind(1), weight, strict=True)
    ]
    if gain is None or bias is None:
        return [head.relu_() for head in heads]
    norms = zip(heads, gain.view(2, width), bias.view(2, width), strict=True)
    return [torch.nn.functional.layer_norm(head, (width,), g, b).relu_() for head, g, b in norms]


def _each(bias: Tensor, hidden: list[Tensor], weight: Tensor) -> Tensor:
    """A linear layer of each head: 2 x N, 2 x [B A, H] and [2, H, N] -> [2, B A, N]."""
    return torch.stack([torch.addmm(b, part, w) for b, part, w in zip(bias, hidden, weight, strict=True)])


def flat(state: State) -> Tensor:
    """Features and w- of every risky name, then the market, [B, (n - 1) (F + 1) + M + 2]; cash is what is left."""
    return torch.cat([state.assets[:, :-1, :-1].flatten(1), state.market], -1)


class MlpActor(Actor):
    """One trunk, and linear heads for tilts, gate, rate and width.

    Experts see every input, so that only their priors and their heads tell them apart.

    Parameters
    ----------
    actors, experts, assets : A, K and n.
    state_dim : length of the flat state.
    hidden_dim : width of both hidden layers.
    dropout : share of the second layer's units dropped while training.
    layer_norm : normalise the first hidden layer.
    """

    def __init__(
        self, actors: int, state_dim: int, experts: int, assets: int, hidden_dim: int, dropout: float, layer_norm: bool
    ) -> None:
        super().__init__(actors)
        self.trunk = nn.Sequential(
            MemberLinear(actors, state_dim, hidden_dim),
            MemberNorm(actors, hidden_dim) if layer_norm else nn.Identity(),
            nn.ReLU(inplace=True), MemberLinear(actors, hidden_dim, hidden_dim), nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )  # fmt: skip
        self.tilt = MemberLinear(actors, hidden_dim, experts * assets)
        nn.init.zeros_(self.tilt.weight)
        nn.init.zeros_(self.tilt.bias)
        gate = MemberLinear(actors, hidden_dim, experts)
        self.gate = gate if experts > 1 else None
        self.rate = MemberLinear(actors, hidden_dim + 2, 1)
        self.sigma = MemberLinear(actors, hidden_dim, assets - 1)
        set_start(gate=gate, rate=self.rate, sigma=self.sigma)

    def encode(self, state: State) -> Tensor:
        """The trunk's last layer."""
        return self.recomputed(self.trunk, self.by_actor(flat(state)))

    def tilts(self, state: State, context: Tensor) -> Tensor:
        """See `Actor`."""
        return self.mixed(self.tilt, context).flatten(0, 1).unflatten(-1, (-1, state.priors.shape[-1]))

    def widths(self, state: State, context: Tensor) -> Tensor:
        """See `Actor`."""
        return self.mixed(self.sigma, context).flatten(0, 1)


class MlpCritic(Critic):
    """Twins and value, each with layers of its own; for the parameters see `MlpActor` and `PortfolioCritic`.

    The first layer is split into W_s s, computed once per state, and W_a a, computed for each action.
    """

    def __init__(self, state_dim: int, assets: int, hidden_dim: int, atoms: int, layer_norm: bool) -> None:
        super().__init__()
        self.from_state = nn.Linear(state_dim, 2 * hidden_dim)
        self.from_action = nn.Parameter(uniform(2, assets, hidden_dim))
        self.norm_weight = nn.Parameter(torch.ones(2, 1, hidden_dim)) if layer_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(2, 1, hidden_dim)) if layer_norm else None
        self.second = nn.Parameter(uniform(2, hidden_dim, hidden_dim))
        self.second_bias = nn.Parameter(torch.zeros(2, 1, hidden_dim))
        self.out = nn.Parameter(uniform(2, hidden_dim, atoms))
        self.out_bias = nn.Parameter(torch.zeros(2, 1, atoms))
        self.value_head = nn.Sequential(
            nn.Linear(state_dim, hidden_dim), normalised(hidden_dim, layer_norm), nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, 1),
        )  # fmt: skip

    def embed(self, state: State) -> tuple[Tensor, ...]:
        """W_s s of both twins [B, 2 H], and the flat state."""
        inputs = flat(state)
        return self.mixed(self.from_state, inputs), inputs

    def hidden(self, *inputs: Tensor) -> list[Tensor]:
        """See `Critic`."""
        state, _, weights = inputs
        first = first_layer(state, weights.flatten(0, 1), self.from_action, self.norm_weight, self.norm_bias)
        second = zip(self.second_bias, first, self.second, strict=True)
        return [torch.addmm(bias, part, weight).relu_() for bias, part, weight in second]

    def value(self, embedding: tuple[Tensor, ...]) -> Tensor:
        """See `Critic`."""
        return self.recomputed(self.value_head, embedding[1]).squeeze(-1)

    def value_of(self, state: State) -> Tensor:
        """See `Critic`; the twins' first layer is left out."""
        return self.recomputed(self.value_head, flat(state)).squeeze(-1)


EXPERT_GROUPS: Mapping[str, tuple[str, ...]] = {
    "volatility": ("returns",),
    "correlation": ("structure",),
    "momentum": ("momentum",),
    "defensive": ("returns", "structure"),
    "growth": ("technical", "momentum"),
    "benchmark": ("returns", "technical", "structure", "momentum"),
}
"""Feature groups each expert sees; every expert also sees the user's signals, its own weight and the cash flag."""

SINGLE = "single"
"""Name of the one expert of a policy without a gate, which sees every feature."""


@dataclass(frozen=True)
class ObservationSpec:
    """Meaning of the networks' inputs; weights fit another market only if this is equal.

    Attributes
    ----------
    features, feature_groups : names of the F asset features and the group of each.
    market_features : names of the M market features.
    experts : names of the K experts; `SINGLE` alone where there is no gate.
    assets : names of the n assets in their order, for networks that identify assets by position; else empty.
    """

    features: tuple[str, ...]
    feature_groups: tuple[str, ...]
    market_features: tuple[str, ...]
    experts: tuple[str, ...]
    assets: tuple[str, ...] = ()

    @classmethod
    def of(cls, market: Market, algo: OfflineAlgorithm | OnlineAlgorithm) -> Self:
        """What the networks of `algo` see of `market`."""
        return cls(
            features=market.feature_names,
            feature_groups=tuple(group_of(name) for name in market.feature_names),
            market_features=market.market_feature_names,
            experts=(SINGLE,) if isinstance(algo, OnlineAlgorithm) and algo.gate is None else tuple(EXPERT_GROUPS),
            assets=market.assets if algo.network.kind != "portfolio" else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {key: list(value) for key, value in asdict(self).items()}

    def expert_inputs(self) -> Tensor:
        """[K, F + 2] bool: which asset inputs expert k sees."""
        seen = [
            [expert == SINGLE or group in (*EXPERT_GROUPS[expert], "signal") for group in self.feature_groups]
            + [True, True]
            for expert in self.experts
        ]
        return torch.tensor(seen)


class Networks(Computed):
    """Actor, critic and the critic's Polyak target."""

    def __init__(self, actor: Actor, critic: Critic) -> None:
        super().__init__()
        self.actor = actor
        self.critic = critic
        self.target = copy.deepcopy(critic).requires_grad_(False)

    def unsound(self) -> str | None:
        """Name of the first tensor that holds a NaN or infinity."""
        tensors = self.state_dict()
        finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).tolist()
        return next((name for name, good in zip(tensors, finite, strict=True) if not good), None)

    @torch.no_grad()
    def polyak(self, tau: float) -> None:
        """target <- (1 - tau) target + tau critic."""
        # Nine times faster than a loop over parameters; torch has no public name for it.
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            list(self.target.parameters()), list(self.critic.parameters()), tau
        )


def build_networks(
    spec: ObservationSpec, network: Network, seed: int, device: torch.device, computing: Computing | None = None
) -> Networks:
    """Build and initialise every network from the stream `networks` of `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "networks"))
        networks = Networks(*chosen("algo.network.kind", network.kind, _BUILDERS, "networks")(spec, network)).to(device)
    if computing is not None:
        networks.compute_as(computing)
    return networks


def _portfolio(spec: ObservationSpec, network: Network) -> tuple[Actor, Critic]:
    market_dim, width, hidden = len(spec.market_features) + len(PATH_SCALARS), network.embed_dim, network.hidden_dim
    # A single expert is as wide as all experts together, so that comparing the two does not compare sizes.
    expert_dim = width // 2 * len(EXPERT_GROUPS) // len(spec.experts)
    actor = PortfolioActor(network.actors, spec.expert_inputs(), market_dim, width, hidden, network.dropout, expert_dim)
    critic = PortfolioCritic(len(spec.features) + 2, market_dim, width, hidden, network.n_quantiles, network.layer_norm)
    return actor, critic


def _mlp(spec: ObservationSpec, network: Network) -> tuple[Actor, Critic]:
    assets, hidden = len(spec.assets), network.hidden_dim
    state_dim = (assets - 1) * (len(spec.features) + 1) + len(spec.market_features) + len(PATH_SCALARS)
    experts = len(spec.experts)
    actor = MlpActor(network.actors, state_dim, experts, assets, hidden, network.dropout, network.layer_norm)
    return actor, MlpCritic(state_dim, assets, hidden, network.n_quantiles, network.layer_norm)


_BUILDERS: Mapping[str, Callable[[ObservationSpec, Network], tuple[Actor, Critic]]] = {
    "portfolio": _portfolio,
    "mlp": _mlp,
}
