"""The policy with one part taken away: exactly that part is gone, and nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from finflow.agents.bcell import BCell
from finflow.agents.learner import BLOCK, Ablations, GreedyPolicy, ablations, elsewhen
from finflow.envs.simulator import World
from finflow.nn.actor import distance, held_weights
from finflow.nn.networks import EXPERT_GROUPS

ROWS = list(range(1, 110))
NAMES = tuple(EXPERT_GROUPS)


@pytest.fixture
def policy(make_bcell: Callable[..., BCell], world: World) -> GreedyPolicy:
    """Gate, experts and rate that differ from day to day."""
    actor = make_bcell().networks.actor
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in (actor.gate[2].weight, actor.experts.out, actor.rate[2].weight):
            weight.normal_(std=0.5, generator=generator)
    return GreedyPolicy(actor, world)


@pytest.fixture
def taken(policy: GreedyPolicy) -> Ablations:
    return ablations(policy, NAMES, ROWS, np.random.default_rng(0))


Asked = tuple[np.ndarray, np.ndarray, np.ndarray]


def _alone(taken: Ablations, name: str, asked: Asked) -> np.ndarray:
    """Targets of one variant; the others decide beside it, and do not touch it."""
    own, count = taken.names.index(name), len(taken.names)
    return np.stack(
        [
            taken.act(np.repeat(row, count), np.tile(held, (count, 1)), np.repeat(drawdown, count))[own]
            for row, held, drawdown in zip(*asked, strict=True)
        ]
    )


def _asked(policy: GreedyPolicy) -> Asked:
    rows = np.array([3, 50, 90])
    held = np.random.default_rng(1).dirichlet(np.ones(policy.world.returns.shape[1]), 3)
    return rows, held, np.array([0.0, 0.02, 0.1])


def _mixed(policy: GreedyPolicy, gate: np.ndarray, experts: np.ndarray) -> np.ndarray:
    """What the actor does with this gate and these experts: its own rate for the way to their mixture."""
    actor, state = policy.actor, policy.world.observe(*_asked(policy))
    aim = torch.einsum("bk,bkn->bn", torch.as_tensor(gate).float(), torch.as_tensor(experts).float())
    held = held_weights(state)
    with torch.no_grad():
        rate = torch.sigmoid(actor.rate(torch.cat([state.market, distance(aim, held)], -1)[None])[0])
    return torch.lerp(held, aim, rate).double().numpy()


def test_the_whole_policy_decides_beside_its_variants(policy: GreedyPolicy, taken: Ablations) -> None:
    found = _alone(taken, "policy", _asked(policy))
    np.testing.assert_allclose(found, policy.act(*_asked(policy)), atol=1e-6)


@pytest.mark.parametrize("left_out", range(len(NAMES)))
def test_an_expert_left_out_leaves_its_share_to_the_others(
    policy: GreedyPolicy, taken: Ablations, left_out: int
) -> None:
    decision = policy.decide(*_asked(policy))
    gate = decision.gate.double().numpy().copy()
    gate[:, left_out] = 0.0
    expected = _mixed(policy, gate / gate.sum(1, keepdims=True), decision.experts.double().numpy())
    found = _alone(taken, f"without {NAMES[left_out]}", _asked(policy))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - policy.act(*_asked(policy))).max() > 1e-5


def test_frozen_experts_are_their_priors_under_the_same_gate(policy: GreedyPolicy, taken: Ablations) -> None:
    decision = policy.decide(*_asked(policy))
    priors = policy.world.observe(*_asked(policy)).priors.numpy()
    expected = _mixed(policy, decision.gate.double().numpy(), priors)
    np.testing.assert_allclose(_alone(taken, "experts at their priors", _asked(policy)), expected, atol=1e-6)


def test_a_shuffled_gate_is_that_of_another_day(policy: GreedyPolicy, taken: Ablations) -> None:
    rows, held, drawdown = _asked(policy)
    other = np.array(dict(zip(ROWS, elsewhen(ROWS, np.random.default_rng(0)), strict=True)).__getitem__(3))
    gate = policy.decide(np.array([int(other)]), held[:1], drawdown[:1]).gate.double().numpy()
    decision = policy.decide(rows, held, drawdown)
    expected = _mixed(policy, np.repeat(gate, 3, axis=0), decision.experts.double().numpy())
    np.testing.assert_allclose(_alone(taken, "shuffled gate", (rows, held, drawdown))[0], expected[0], atol=1e-6)


@pytest.mark.parametrize("count", [20, 126, 750])
def test_blocks_change_places_and_stay_whole(count: int) -> None:
    """Every day once; none keeps its own; neighbours stay neighbours but where blocks meet."""
    rows = list(range(100, 100 + count))
    for seed in range(5):
        moved = elsewhen(rows, np.random.default_rng(seed))
        assert sorted(moved) == rows
        assert not any(old == new for old, new in zip(rows, moved, strict=True))
        assert int((np.diff(moved) != 1).sum()) <= max(count // BLOCK, 2) - 1
