"""States drawn at random and small networks: neither needs a market."""

from collections.abc import Callable

import pytest
import torch

from finflow.envs.simulator import State
from finflow.nn.networks import EXPERT_GROUPS, Networks, ObservationSpec, build_networks
from tests.shapes import small_network

MakeState = Callable[..., State]
MakeNetworks = Callable[..., Networks]

SPEC = ObservationSpec(
    features=("return_1d", "rsi_14", "beta_126", "momentum_21", "signal:own"),
    feature_groups=("returns", "technical", "structure", "momentum", "signal"),
    market_features=("index_volatility", "breadth", "turbulence"),
    experts=tuple(EXPERT_GROUPS),
)


@pytest.fixture(scope="session")
def spec() -> ObservationSpec:
    return SPEC


@pytest.fixture(scope="session")
def make_state() -> MakeState:
    def make(batch: int = 6, n: int = 5, seed: int = 0, masked: tuple[int, ...] = ()) -> State:
        """B random states of n assets (cash last); the names in `masked` are untradable in every second row."""
        g = torch.Generator().manual_seed(seed)
        tradable = torch.ones(batch, n, dtype=torch.bool)
        tradable[::2, list(masked)] = False
        priors = torch.softmax(2 * torch.randn(batch, 6, n, generator=g), -1) * tradable[:, None]
        drifted = torch.softmax(torch.randn(batch, n, generator=g, dtype=torch.float64), -1)
        assets = torch.randn(batch, n, len(SPEC.features) + 2, generator=g)
        assets[..., -2], assets[..., -1] = drifted.float(), 0.0
        assets[:, -1, -1] = 1.0
        return State(
            torch.arange(batch),
            assets,
            torch.randn(batch, len(SPEC.market_features) + 2, generator=g),
            drifted,
            torch.zeros(batch, dtype=torch.float64),
            tradable,
            torch.ones(batch, dtype=torch.bool),
            priors / priors.sum(-1, keepdim=True),
        )

    return make


@pytest.fixture(scope="session")
def make_networks() -> MakeNetworks:
    def make(
        seed: int = 0, *, scatter: bool = False, dropout: float = 0.0, layer_norm: bool = True, actors: int = 1
    ) -> Networks:
        """Small networks; with `scatter` no parameter is at its start, heads that begin at zero included."""
        shape = small_network(dropout=dropout, actors=actors, layer_norm=layer_norm)
        networks = build_networks(SPEC, shape, seed, torch.device("cpu"))
        if scatter:
            g = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in networks.parameters():
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
        return networks

    return make
