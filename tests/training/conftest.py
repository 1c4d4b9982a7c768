"""One small synthetic market, prepared as a run would prepare it, and what the loops are handed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.agents.learner import Learner
from finflow.agents.td3bc import TD3BC
from finflow.config.compose import load
from finflow.envs.collect import Dataset
from finflow.nn.networks import build_networks
from finflow.schema import Config
from finflow.schema.sections import BCellConfig, IQLConfig, TD3BCConfig
from finflow.stages.prepare import Prepared, fit, load_market, offline_data
from finflow.tracking.tracker import Row
from finflow.training.monitor import Monitor
from finflow.training.replay_buffer import ReplayBuffer

CPU = torch.device("cpu")
SMALL = [
    "env=synthetic", "env.synthetic.days=1300", "env.synthetic.assets=4", "env.episode_days=21", "env.num_envs=3",
    "budget.collect_episodes=12", "algo.batch_size=16",
    "algo.network.hidden_dim=16", "algo.network.embed_dim=8", "algo.network.n_quantiles=8",
]  # fmt: skip

EVERY_STEP = ["algo.horizon=0", "algo.update_interval=1"]
"""Phase 2 by the critic alone, one update a step: what the loop does is then easily counted."""


class Recorder:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, Row]] = []
        self.alerts: list[str] = []

    def log(self, step_name: str, step: int, row: Row) -> None:
        self.rows.append((step_name, step, dict(row)))

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        pass

    def alert(self, step_name: str, step: int, message: str) -> None:
        self.alerts.append(message)

    def close(self) -> None:
        pass


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("outputs")
    return load("finetune", [*SMALL, "algo.cql.n_actions=3", *EVERY_STEP, f"output_root='{root}'"])


@pytest.fixture(scope="session")
def prepared(config: Config) -> Prepared:
    return fit(config, load_market(config), CPU)


@pytest.fixture(scope="session")
def dataset(config: Config, prepared: Prepared) -> Dataset:
    return offline_data(config, prepared)


@pytest.fixture
def memory(dataset: Dataset) -> ReplayBuffer:
    return ReplayBuffer.of(dataset, CPU)


@pytest.fixture(scope="session")
def iql_config(tmp_path_factory: pytest.TempPathFactory) -> IQLConfig:
    algo = load("pretrain", [*SMALL, "algo.extraction=awr"]).algo
    assert isinstance(algo, IQLConfig)
    return algo


@pytest.fixture
def iql(iql_config: IQLConfig, prepared: Prepared) -> IQL:
    networks = build_networks(prepared.spec, iql_config.network, 0, CPU)
    return IQL(networks, iql_config, prepared.world, torch.Generator().manual_seed(0))


@pytest.fixture
def td3bc(prepared: Prepared) -> TD3BC:
    algo = load("pretrain", ["algo=td3bc", *SMALL]).algo
    assert isinstance(algo, TD3BCConfig)
    networks = build_networks(prepared.spec, algo.network, 0, CPU)
    return TD3BC(networks, algo, prepared.world, torch.Generator().manual_seed(0))


@pytest.fixture
def make_bcell(config: Config, prepared: Prepared) -> Callable[..., BCell]:
    def make(seed: int = 0, **changes: object) -> BCell:
        assert isinstance(config.algo, BCellConfig)
        algo = config.algo.model_copy(update=changes)
        networks = build_networks(prepared.spec, algo.network, seed, CPU)
        return BCell(networks, algo, prepared.world, torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def make_monitor(recorder: Recorder, prepared: Prepared) -> Callable[..., Monitor]:
    def make(agent: Learner, *settings: str, step_name: str = "episode", **kwargs: Any) -> Monitor:
        """Watches `agent`, under settings such as "monitor=act"."""
        section = load("finetune", settings).monitor
        defaults = {"step_name": step_name, "names": prepared.market.n - 1, "conservative": True}
        return Monitor(section, agent, recorder, **(defaults | kwargs))

    return make


@pytest.fixture
def figures() -> Mapping[str, float | None]:
    return {"validation_sharpe": 0.5}
