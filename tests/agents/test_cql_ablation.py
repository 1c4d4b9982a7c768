"""What CQL is for: an action that the data never show, but that extrapolation makes look best."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from finflow.agents.base import Batch, OnlineCoefficients, measure_scales
from finflow.agents.bcell import BCell
from finflow.envs.simulator import State, World
from finflow.schema.sections import CQL
from tests.shapes import small_network

COUNT, WARM_UP, UPDATES = 4096, 250, 300
UNSEEN = torch.tensor([0.94, 0.02, 0.02, 0.02])


class Values(NamedTuple):
    """Mean value of the data's actions and of the unseen one, and standard deviation of the atoms."""

    data: float
    unseen: float
    spread: float


@pytest.fixture
def named_world(make_world: Callable[..., World]) -> World:
    """Features that tell the names apart and nothing else."""
    base = make_world()
    features = torch.zeros(120, 4, 5)
    for name, column in enumerate((0, 1, 2, 4)):
        features[:, name, column] = 2.0
    return replace(base, features=features, market=torch.zeros(120, 2))


def _values(agent: BCell, state: State, weights: torch.Tensor) -> Values:
    critic = agent.networks.critic
    with torch.no_grad():
        embedding = critic.embed(state)
        seen = critic.atoms(embedding, weights[:, None])
        unseen = critic.atoms(embedding, UNSEEN.expand(len(weights), 1, 4))
    return Values(float(seen.mean()), float(unseen.mean()), float(seen.std(-1).mean()))


class Data(NamedTuple):
    """Transitions of one step: states, weights and rewards."""

    state: State
    weights: torch.Tensor
    reward: torch.Tensor


def _data(world: World) -> Data:
    """Rewards grow with the first name's weight, which the data never raise above .3."""
    g = torch.Generator().manual_seed(0)
    first = 0.3 * torch.rand(COUNT, generator=g)
    others = torch.softmax(torch.randn(COUNT, 3, generator=g), -1) * (1 - first)[:, None]
    held = torch.full((COUNT, 4), 0.25, dtype=torch.float64)
    state = world.observe(torch.randint(1, 118, (COUNT,), generator=g), held, torch.zeros(COUNT, dtype=torch.float64))
    reward = 10 * first + 2 * torch.randn(COUNT, generator=g)
    return Data(state, torch.cat([first[:, None], others], -1), reward)


def _learn(agent: BCell, data: Data, start: int, end: int) -> None:
    """Updates of the critic alone, the learning rate falling to 0 over the whole."""
    g, nothing = torch.Generator().manual_seed(start), torch.zeros(64)
    for step in range(start, end):
        index = torch.randint(0, COUNT, (64,), generator=g)
        state, weights = State(*(part[index] for part in data.state)), data.weights[index]
        batch = Batch(state, weights, data.reward[index], nothing, state, weights, nothing.bool())
        now = OnlineCoefficients(
            0.2, anchor=0.0, temperature=1.0, balance=0.0, cql=1.0, learn_policy=False,
            lr_factor=1 - step / (WARM_UP + UPDATES),
        )  # fmt: skip
        agent.update(batch, now)


def test_cql_holds_an_action_without_support_below_the_data(
    make_bcell: Callable[..., BCell], named_world: World
) -> None:
    """At the guide's 10, on the scale that is measured; the data's own values stay where they are."""
    network = small_network(n_quantiles=16)
    cql = CQL(alpha=10.0, n_actions=10, batch_fraction=1.0, anneal=[1.0, 1.0], calibrate=True)
    agents = [make_bcell(0, named_world, network=network, critic_lr=1e-2, tau=0.05, cql=c) for c in (None, cql)]
    data = _data(named_world)
    some = State(*(part[:512] for part in data.state))
    _learn(agents[0], data, 0, WARM_UP)
    agents[0].scales = measure_scales(agents[0].networks, named_world, some, torch.Generator().manual_seed(1))
    agents[1].load_state_dict(copy.deepcopy(agents[0].state_dict()))
    for agent in agents:
        _learn(agent, data, WARM_UP, WARM_UP + UPDATES)
    without, with_cql = (_values(agent, some, data.weights[:512]) for agent in agents)
    assert without.unseen > without.data
    assert with_cql.unseen < with_cql.data
    assert abs(with_cql.data - without.data) < 0.1 * without.spread
