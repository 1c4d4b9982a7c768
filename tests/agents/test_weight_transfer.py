"""Phase 2 takes over phase 1 to the bit; a single expert starts at the mean of all tilts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from finflow.agents.base import Batch, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell, hand_over
from finflow.agents.learner import GreedyPolicy, ablations, describe
from finflow.envs.simulator import World
from finflow.nn.actor import PRIOR_FLOOR, TILT_BOUND
from finflow.nn.networks import SINGLE, Networks, flat
from finflow.schema.sections import IQLConfig

MakeNetworks = Callable[..., Networks]
MakeBatch = Callable[..., Batch]


@pytest.fixture
def parent(make_networks: MakeNetworks) -> Networks:
    """Networks none of whose outputs is what it starts as."""
    networks, g = make_networks(7), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in networks.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=g))
    return networks


def test_experts_and_gate_are_handed_over_to_the_bit(parent: Networks, make_networks: MakeNetworks) -> None:
    child = make_networks(1)
    assert hand_over(parent, child) is None
    assert all(torch.equal(tensor, child.state_dict()[name]) for name, tensor in parent.state_dict().items())


def test_a_single_expert_starts_at_the_mean_of_all_tilts(
    parent: Networks, make_networks: MakeNetworks, make_batch: MakeBatch, world: World
) -> None:
    """Undone by hand: ln e_k is ln(P_k + floor) + 3 tanh(f_k / 3) + constant, so f_k can be read off up to a shift."""
    child, state = make_networks(1, experts=(SINGLE,)), make_batch(world).state
    lost = hand_over(parent, child)
    assert lost is not None
    assert "gate" in lost
    local = state.assets[:, :, None] * parent.actor.experts.groups[:, None].transpose(0, 1)  # [B, n, K, F + 2]
    hidden = torch.einsum("bnkf,fkh->bnkh", local, parent.actor.experts.weight[0])
    context = parent.actor.experts.market(state.market[None])[0].view(len(hidden), 1, *hidden.shape[2:])
    tilt = torch.einsum("bnkh,kh->bkn", torch.relu(hidden + context), parent.actor.experts.out[0]).mean(1)
    start = torch.log(state.priors[:, -1] + PRIOR_FLOOR / 4)
    expected = torch.softmax(start + TILT_BOUND * torch.tanh(tilt / TILT_BOUND), -1)
    decision, theirs = child.actor(state), parent.actor(state)
    torch.testing.assert_close(decision.experts[:, 0], expected)
    torch.testing.assert_close(decision.aim, expected)
    assert torch.equal(decision.log_sigma, theirs.log_sigma)
    assert not torch.allclose(expected, state.priors[:, -1], atol=0.01)


def test_critics_targets_and_values_are_handed_over_to_a_single_expert(
    parent: Networks, make_networks: MakeNetworks
) -> None:
    child = make_networks(1, experts=(SINGLE,))
    hand_over(parent, child)
    ours, theirs = child.state_dict(), parent.state_dict()
    same = {name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])}
    others = {"actor.experts.weight", "actor.experts.out"}
    assert set(ours) - same == others
    assert {name for name in theirs if name not in ours} == {
        f"actor.gate.{i}.{w}" for i in (0, 2) for w in ("weight", "bias")
    }
    assert all(ours[name].numel() == theirs[name].numel() for name in others)


def test_networks_that_do_not_fit_are_not_half_handed_over(make_networks: MakeNetworks) -> None:
    with pytest.raises(RuntimeError):
        hand_over(make_networks(0, experts=(SINGLE,)), make_networks(1))


def test_without_learning_a_single_expert_is_the_benchmark(
    make_networks: MakeNetworks, make_batch: MakeBatch, world: World
) -> None:
    state = make_batch(world).state
    decision = make_networks(0, experts=(SINGLE,)).actor(state)
    assert torch.equal(decision.gate, torch.ones(32, 1))
    torch.testing.assert_close(decision.aim, state.priors[:, -1], atol=1e-3, rtol=0)
    assert describe(decision)["expert_distance"] == 0.0
    assert describe(decision)["gate_entropy"] == 0.0


def test_a_single_expert_has_no_gate_to_shuffle_and_none_to_leave_out(
    make_networks: MakeNetworks, world: World
) -> None:
    policy = GreedyPolicy(make_networks(0, experts=(SINGLE,)).actor, world)
    found = ablations(policy, (SINGLE,), range(5, 60), np.random.default_rng(0))
    assert found.names == ("policy", "experts at their priors")
    rows, held = np.array([7, 7]), np.full((2, 4), 0.25)
    np.testing.assert_allclose(found.act(rows, held, np.zeros(2)), policy.act(rows, held, np.zeros(2)), atol=1e-4)


def test_sac_has_no_cql_and_no_balance(
    make_bcell: Callable[..., BCell], world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    agent = make_bcell(gate=None, cql=None)
    agent.scales = Scales(0.5, 5.0)
    metrics = agent.update(make_batch(world), coefficients)
    assert agent.cql_weight() == 0.0
    assert "cql" not in metrics
    assert float(metrics["gate_entropy"]) == 0.0
    assert float(metrics["rate"]) > 0


def test_plain_networks_hand_over_the_mean_of_their_tilts(
    iql_config: IQLConfig, make_networks: MakeNetworks, make_batch: MakeBatch, world: World
) -> None:
    """The one tilt is the mean of all, over the benchmark's portfolio."""
    shape = iql_config.network.model_copy(update={"kind": "mlp"})
    parent, child = make_networks(7, shape), make_networks(1, shape, (SINGLE,))
    state, g = make_batch(world).state, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in parent.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=g))
        assert "gate" in str(hand_over(parent, child))
        tilt = parent.actor.tilt(parent.actor.trunk(flat(state)[None]))[0].view(32, 6, 4).mean(1)
        start = torch.log(state.priors[:, -1] + PRIOR_FLOOR / 4)
        expected = torch.softmax(start + TILT_BOUND * torch.tanh(tilt / TILT_BOUND), -1)
        decision = child.actor(state)
    torch.testing.assert_close(decision.aim, expected)
    assert not torch.allclose(expected, state.priors[:, -1], atol=0.01)
    assert torch.equal(decision.log_sigma, parent.actor(state).log_sigma)
