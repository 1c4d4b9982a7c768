"""All networks of a run, built from one specification, so that phase 2 loads exactly what phase 1 trained."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from finflow.data.features import group_of
from finflow.data.market import Market
from finflow.envs.world import PATH_SCALARS
from finflow.nn.actor import Actor, PortfolioActor
from finflow.nn.critic import Critic, PortfolioCritic
from finflow.nn.layers import Computed, Computing
from finflow.nn.mlp import MlpActor, MlpCritic
from finflow.plugins import chosen
from finflow.schema.algo import Network, OfflineAlgorithm, OnlineAlgorithm
from finflow.seeding import stream_seed

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
