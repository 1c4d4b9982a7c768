import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from finflow.agents.base import Batch, measure_scales
from finflow.agents.learner import GreedyPolicy, describe
from finflow.envs.simulator import World
from finflow.nn.actor import Decision
from finflow.nn.networks import Networks

MakeNetworks = Callable[..., Networks]


def test_greedy_is_the_mean_of_the_policy(make_networks: MakeNetworks, world: World) -> None:
    actor = make_networks().actor
    rows, drifted, drawdown = np.array([3, 7]), np.full((2, 4), 0.25), np.array([0.0, 0.1])
    policy = GreedyPolicy(actor, world)
    state = world.observe(torch.from_numpy(rows), torch.from_numpy(drifted), torch.from_numpy(drawdown))
    decision = actor(state)
    target = policy.act(rows, drifted, drawdown)
    gate, rate = policy.explain(rows, drifted, drawdown)
    assert target.dtype == np.float64
    assert np.array_equal(target, decision.mean.detach().double().numpy())
    assert np.array_equal(gate, decision.gate.detach().double().numpy())
    assert np.array_equal(rate, decision.rate.detach().double().numpy())
    assert actor.training
    actor.eval()
    policy.act(rows, drifted, drawdown)
    assert not actor.training


def test_the_whole_tilt_is_the_policy_as_it_was_trained(make_networks: MakeNetworks, world: World) -> None:
    actor = make_networks().actor
    with torch.no_grad():
        for part in actor.parameters():  # an actor that has learnt nothing has no tilt
            part.add_(0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(0)))
    state = np.array([3, 7]), np.full((2, 4), 0.25), np.array([0.0, 0.1])
    trained = GreedyPolicy(actor, world).act(*state)
    actor.confidence = 0.25
    deployed = GreedyPolicy(actor, world)
    assert not np.allclose(deployed.act(*state), trained)
    assert np.array_equal(deployed.at_whole_tilt().act(*state), trained)
    assert actor.confidence == 0.25


def test_description_by_hand() -> None:
    experts = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]])
    gate = torch.tensor([[0.5, 0.5, 0.0]])
    mean = torch.tensor([[0.5, 0.5]])
    decision = Decision(mean, mean, gate, experts, torch.tensor([0.25]), torch.zeros(1, 1), torch.ones(1, 2) > 0)
    assert describe(decision) == {
        "gate_entropy": pytest.approx(math.log(2)),
        "expert_distance": pytest.approx((1.0 + 0.5 + 0.5) / 3),
        "rate": 0.25,
        "effective_assets": pytest.approx(2.0),
    }


def test_copies_of_one_expert_are_seen() -> None:
    experts = torch.softmax(torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0)), -1).expand(4, 5, 3)
    gate = torch.full((4, 5), 0.2)
    decision = Decision(experts[:, 0], experts[:, 0], gate, experts, gate[:, 0], gate[:, :2], experts[:, 0] > 0)
    figures = describe(decision)
    assert figures["expert_distance"] == 0.0
    assert figures["gate_entropy"] == pytest.approx(math.log(5))


def test_scales_are_in_units_of_the_reward(
    make_networks: MakeNetworks, world: World, make_batch: Callable[..., Batch]
) -> None:
    """s_A and s_Q grow with the critic's output and ignore its level; known for a constant distribution."""
    networks, state = make_networks(), make_batch(world).state

    def measure() -> tuple[float, float]:
        return measure_scales(networks, world, state, torch.Generator().manual_seed(0))

    first = measure()
    assert first[0] > 0
    assert first[1] > 0
    assert measure() == first
    with torch.no_grad():
        networks.critic.out.mul_(7.0)
        networks.critic.out_bias.mul_(7.0)
    assert measure() == pytest.approx((7 * first[0], 7 * first[1]), rel=1e-4)
    with torch.no_grad():
        networks.critic.out_bias.add_(30.0)
    assert measure() == pytest.approx((7 * first[0], 7 * first[1]), rel=1e-3)
    with torch.no_grad():
        networks.critic.out.zero_()
        networks.critic.out_bias.copy_(torch.tensor([-1.0, 1.0]).repeat(4).expand(2, 8))
    assert measure() == pytest.approx((0.0, 1.0), abs=1e-6)
