"""A world of three risky names whose returns are drawn or dictated, batches of it, and small agents."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from finflow.agents.base import Batch, OnlineCoefficients, Paths
from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.agents.td3bc import TD3BC
from finflow.config.compose import load
from finflow.data.market import TRADABLE
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import World
from finflow.nn.networks import EXPERT_GROUPS, SINGLE, Networks, ObservationSpec, build_networks
from finflow.schema.sections import BCellConfig, IQLConfig, Network, TD3BCConfig
from finflow.training.replay_buffer import Batcher, Transitions

CPU = torch.device("cpu")
DAYS, N = 120, 4
SMALL = [
    "algo.network.hidden_dim=16", "algo.network.embed_dim=8", "algo.network.n_quantiles=8", "algo.batch_size=32",
    "algo.actors=1",
]  # fmt: skip
SPEC = ObservationSpec(
    features=("return_1d", "rsi_14", "beta_126", "momentum_21"),
    feature_groups=("returns", "technical", "structure", "momentum"),
    market_features=("index_volatility", "breadth"),
    experts=tuple(EXPERT_GROUPS),
)


def huber_of(error: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Huber's loss over kappa, kappa a quarter of the standard deviation of the predicted atoms."""
    kappa = float(atoms.std(-1, correction=0).mean()) / 4
    return torch.where(error.abs() < kappa, 0.5 * error**2 / kappa, error.abs() - kappa / 2)


@pytest.fixture(scope="session")
def iql_config() -> IQLConfig:
    algo = load("pretrain", [*SMALL, "algo.extraction=awr"]).algo
    assert isinstance(algo, IQLConfig)
    return algo


@pytest.fixture(scope="session")
def bcell_config() -> BCellConfig:
    algo = load("finetune", [*SMALL, "algo.cql.n_actions=3", "algo.horizon=0"]).algo
    assert isinstance(algo, BCellConfig)
    return algo


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    def make(returns: float | None = None, *, cost_rate: float = 0.0015, turnover: float = 0.1) -> World:
        """Risky returns drawn (about 1 % a day), or `returns` on every name and day; daily decisions."""
        rng = np.random.default_rng(0)
        g = torch.Generator().manual_seed(0)
        drawn = 0.01 * rng.standard_normal((DAYS, N)) if returns is None else np.full((DAYS, N), returns)
        drawn[:, -1] = 0.0
        features = torch.randn(DAYS, N, len(SPEC.features) + 1, generator=g)
        features[..., -1] = 0.0
        features[:, -1] = torch.tensor([0.0] * len(SPEC.features) + [1.0])
        return World(
            features=features,
            market=torch.randn(DAYS, len(SPEC.market_features), generator=g),
            status=torch.full((DAYS, N), TRADABLE, dtype=torch.int8),
            returns=torch.from_numpy(drawn),
            log_benchmark=torch.from_numpy(drawn[:, :-1].mean(1)).log1p(),
            decision=torch.ones(DAYS, dtype=torch.bool),
            priors=torch.softmax(2 * torch.randn(DAYS, len(EXPERT_GROUPS), N, generator=g), -1),
            accounting=Accounting(cost_rate=cost_rate),
            reward=RewardModel(100.0, 0.02, lambda_cvar=5.0, lambda_turn=turnover, lambda_dd=0.0, lambda_risk=0.0),
        )

    return make


@pytest.fixture(scope="session")
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture(scope="session")
def calm_world(world: World) -> World:
    """The same world with no decision day at all."""
    return replace(world, decision=torch.zeros_like(world.decision))


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    def make(world: World, count: int = 32, seed: int = 0, gamma: float = 0.9, relabel: float = 0.5) -> Batch:
        """`count` transitions from random portfolios, completed by the ledger."""
        g = torch.Generator().manual_seed(seed)
        days, n = world.status.shape
        row = torch.randint(1, days - 2, (count,), generator=g)
        held, done, following = torch.softmax(
            2 * torch.randn(3, count, n, generator=g, dtype=torch.float64), -1
        ).unbind()
        logged = Transitions(
            row, row + 1, held, done, torch.zeros(count, dtype=torch.float64), following,
            torch.ones(count, dtype=torch.bool),
        )  # fmt: skip
        return Batcher(world, relabel, 0.0, gamma, g).complete(logged)

    return make


@pytest.fixture(scope="session")
def make_paths() -> Callable[..., Paths]:
    def make(count: int = 8, horizon: int = 3, seed: int = 0) -> Paths:
        """`count` walkers on days that follow each other, holding random portfolios."""
        g = torch.Generator().manual_seed(seed)
        first = torch.randint(1, DAYS - horizon - 2, (count, 1), generator=g)
        held = torch.softmax(torch.randn(count, N, generator=g, dtype=torch.float64), -1)
        rows = first + torch.arange(horizon + 1)
        return Paths(rows, held, torch.zeros(count, dtype=torch.float64), all_open=False)

    return make


@pytest.fixture(scope="session")
def coefficients() -> OnlineCoefficients:
    return OnlineCoefficients(sigma=0.2, anchor=0.5, temperature=1.5, balance=1e-2, cql=1.0)


@pytest.fixture(scope="session")
def make_networks(iql_config: IQLConfig) -> Callable[..., Networks]:
    def make(seed: int = 0, shape: Network = iql_config.network, experts: tuple[str, ...] = SPEC.experts) -> Networks:
        names = tuple("ABCD") if shape.kind == "mlp" else ()
        return build_networks(replace(SPEC, assets=names, experts=experts), shape, seed, CPU)

    return make


@pytest.fixture(scope="session")
def make_iql(iql_config: IQLConfig, make_networks: Callable[..., Networks], world: World) -> Callable[..., IQL]:
    def make(seed: int = 0, where: World = world, **changes: object) -> IQL:
        config = iql_config.model_copy(update=changes)
        generator = torch.Generator().manual_seed(seed)
        return IQL(make_networks(seed, config.network), config, where, generator)

    return make


@pytest.fixture(scope="session")
def make_bcell(bcell_config: BCellConfig, make_networks: Callable[..., Networks], world: World) -> Callable[..., BCell]:
    def make(seed: int = 0, where: World = world, **changes: object) -> BCell:
        config, generator = bcell_config.model_copy(update=changes), torch.Generator().manual_seed(seed)
        experts = SPEC.experts if config.gate else (SINGLE,)
        return BCell(make_networks(seed, config.network, experts), config, where, generator)

    return make


@pytest.fixture(scope="session")
def make_td3bc(make_networks: Callable[..., Networks], world: World) -> Callable[..., TD3BC]:
    algo = load("pretrain", ["algo=td3bc", *SMALL]).algo
    assert isinstance(algo, TD3BCConfig)

    def make(seed: int = 0, where: World = world, **changes: object) -> TD3BC:
        config, generator = algo.model_copy(update=changes), torch.Generator().manual_seed(seed)
        return TD3BC(make_networks(seed, config.network), config, where, generator)

    return make
