"""What every algorithm promises, whatever it computes."""

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients, OnlineCoefficients, Paths, Scales
from finflow.agents.bcell import BCell
from finflow.agents.direct import Direct
from finflow.agents.learner import LEARNERS, OfflineLearner, OnlineLearner, make_learner
from finflow.config.compose import load
from finflow.envs.simulator import World
from finflow.nn.networks import SINGLE, Networks
from finflow.schema import ALGORITHMS
from finflow.schema.sections import Algorithm, OfflineAlgorithm

from .conftest import SMALL, SPEC

Agent = OfflineLearner | OnlineLearner
MakeBatch = Callable[..., Batch]


STAGE = {name: stage for stage, names in ALGORITHMS.items() for name in names}
WALKS = ["algo.horizon=3", "algo.walkers=8"]
BY_CRITIC = {"td3bc", "sac", "awr", "q"}
"""What learns along no paths."""
EXTRAS = {
    "awr": ["algo.extraction=awr"], "q": ["algo.extraction=q_gradient"], "sac": ["algo.horizon=0"],
    "three": ["algo.actors=3"],
    "cql": [], "cvar": ["algo.risk_weight=0.5"], "tqc": ["algo.top_quantiles_dropped=1"],
    "mlp": ["algo.network.kind=mlp"],
}  # fmt: skip
OWN = {"td3bc": ["algo.policy_delay=1"], "bcell": ["algo.cql.n_actions=3"]}
AGENTS = [
    *STAGE, "bcell+cql", "bcell+cvar", "bcell+tqc", "iql+mlp", "sac+mlp", "bcell+cql+mlp", "iql+awr", "iql+q",
    "bcell+sac", "bcell+three+mlp", "direct+three",
]  # fmt: skip
"""Every algorithm that can be named, and variants of some."""


@pytest.fixture(params=AGENTS)
def make_agent(
    request: pytest.FixtureRequest, make_networks: Callable[..., Networks], world: World
) -> Callable[[int], Agent]:
    name, *extras = request.param.split("+")
    changes = [change for extra in extras for change in EXTRAS[extra]]
    small = [word for word in SMALL if name != "direct" or "batch_size" not in word]
    walks = [] if BY_CRITIC & {name, *extras} else WALKS
    algo = load(STAGE[name], [f"algo={name}", *small, *OWN.get(name, []), *walks, *changes]).algo

    def make(seed: int) -> Agent:
        generator = torch.Generator().manual_seed(seed)
        if isinstance(algo, OfflineAlgorithm):
            return make_learner(make_networks(seed, algo.network), algo, world, generator)
        networks = make_networks(seed, algo.network, SPEC.experts if algo.gate else (SINGLE,))
        agent = make_learner(networks, algo, world, generator)
        agent.scales = Scales(0.5, 5.0) if "cql" in extras else None
        return agent

    return make


@pytest.fixture
def update(
    coefficients: OnlineCoefficients, make_paths: Callable[..., Paths]
) -> Callable[[Agent, Batch], dict[str, Tensor]]:
    def run(agent: Agent, batch: Batch) -> dict[str, Tensor]:
        if getattr(agent.config, "horizon", 0) and getattr(agent.config, "extraction", "") in ("", "value_gradient"):
            batch = batch._replace(paths=make_paths(agent.networks.actor.actors * 8, 3))
        if isinstance(agent.config, OfflineAlgorithm):
            return agent.update(batch, OfflineCoefficients(lr_factor=0.7))
        return agent.update(batch, coefficients)

    return run


def test_every_algorithm_has_a_learner_of_its_phase() -> None:
    assert set(LEARNERS) == set(get_args(get_args(Algorithm)[0]))
    assert ALGORITHMS == {"pretrain": ("iql", "td3bc", "direct"), "finetune": ("bcell", "sac")}


Update = Callable[[Agent, Batch], dict[str, Tensor]]
MakeAgent = Callable[[int], Agent]


def _weights(agent: Agent) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in agent.networks.state_dict().items()}


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_update_returns_detached_finite_scalars(
    make_agent: MakeAgent, update: Update, make_batch: MakeBatch, world: World
) -> None:
    agent = make_agent(0)
    for seed in range(3):
        metrics = update(agent, make_batch(world, seed=seed))
        for name, value in metrics.items():
            assert value.shape == (), name
            assert not value.requires_grad, name
            assert torch.isfinite(value), name


def test_update_changes_critic_target_and_actor_but_not_the_batch(
    make_agent: MakeAgent, update: Update, make_batch: MakeBatch, world: World
) -> None:
    agent, batch = make_agent(0), make_batch(world)
    before, kept = _weights(agent), copy.deepcopy(batch)
    update(agent, batch)
    metrics = update(agent, batch)
    after = agent.networks.state_dict()
    tilt = "actor.tilt.weight" if "actor.tilt.weight" in before else "actor.experts.out"
    parts = [tilt] if isinstance(agent, Direct) else ["critic.out", "target.out", tilt]
    if "v_loss" in metrics:  # in phase 2 V is what phase 1 left
        parts.append("critic.value_head.0.weight")
    for part in parts:
        assert not torch.equal(before[part], after[part]), part
    flat = [*batch.state, *batch.next_state, batch.weights, batch.reward, batch.discount, batch.next_weights]
    same = [*kept.state, *kept.next_state, kept.weights, kept.reward, kept.discount, kept.next_weights]
    assert all(torch.equal(a, b) for a, b in zip(flat, same, strict=True))


def test_same_seed_twice_is_identical(
    make_agent: MakeAgent, update: Update, make_batch: MakeBatch, world: World
) -> None:
    runs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for seed in (0, 0, 1):
        agent = make_agent(seed)
        for step in range(3):
            metrics = update(agent, make_batch(world, seed=step))
        runs.append((metrics, _weights(agent)))
    assert _same(runs[0][0], runs[1][0])
    assert _same(runs[0][1], runs[1][1])
    assert not _same(runs[0][1], runs[2][1])


def test_restored_state_continues_to_the_bit(
    make_agent: MakeAgent, update: Update, make_batch: MakeBatch, world: World
) -> None:
    first = make_agent(0)
    for step in range(3):
        update(first, make_batch(world, seed=step))
    state = copy.deepcopy(first.state_dict())
    second = make_agent(1)
    second.load_state_dict(state)
    assert _same(_weights(first), _weights(second))
    for step in range(3, 7):
        assert _same(update(first, make_batch(world, seed=step)), update(second, make_batch(world, seed=step)))
    assert _same(_weights(first), _weights(second))
    if isinstance(first, BCell) and isinstance(second, BCell):
        assert torch.equal(first.log_alpha, second.log_alpha)
        assert first.scales == second.scales


def test_target_critic_never_takes_a_gradient(
    make_agent: MakeAgent, update: Update, make_batch: MakeBatch, world: World
) -> None:
    agent = make_agent(0)
    if isinstance(agent, Direct):
        pytest.skip("direct has no critic")
    before = _weights(agent)
    update(agent, make_batch(world))
    tau, after = agent.config.tau, agent.networks.state_dict()
    for name, target in agent.networks.target.named_parameters():
        assert target.grad is None
        start = before[f"target.{name}"]
        torch.testing.assert_close(target.detach(), start + tau * (after[f"critic.{name}"] - start))
