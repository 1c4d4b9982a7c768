"""What a policy sees, and what becomes of its targets."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from finflow.data.market import ABSENT, FROZEN, TRADABLE, Market
from finflow.envs.ledger import Accounting, execute
from finflow.envs.simulator import PATH_SCALARS, State, World


@pytest.fixture(scope="module")
def world(lively: Market, make_world: Any) -> World:
    return make_world(lively, Accounting(0.001))


def holding(world: World, rows: list[int], drawdown: float = 0.0, seed: int = 0) -> State:
    n = world.returns.shape[1]
    weights = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(n), size=len(rows)))
    return world.observe(torch.tensor(rows), weights, torch.full((len(rows),), drawdown, dtype=torch.float64))


def random_targets(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(shape[-1]), size=shape[:-1]))


def test_what_is_observed(world: World, lively: Market) -> None:
    rows = [100, 200, 360]
    state = holding(world, rows, drawdown=0.07)
    n = lively.n
    assert state.assets.shape == (3, n, 2 + 2)
    assert state.market.shape == (3, 3 + len(PATH_SCALARS))
    assert state.assets.dtype == state.market.dtype == torch.float32
    assert state.drifted.dtype == state.drawdown.dtype == torch.float64
    for b, row in enumerate(rows):
        assert_allclose(state.assets[b, :-1, :2], lively.features[row], rtol=0, atol=0)
        assert (state.assets[b, -1, :2] == 0).all()
        assert_allclose(state.assets[b, :, 2], state.drifted[b].float(), rtol=0, atol=0)
        assert state.assets[b, :, 3].tolist() == [0.0] * (n - 1) + [1.0]
        assert_allclose(state.market[b, :3], lively.market_features[row], rtol=0, atol=0)
        assert_allclose(state.market[b, 3:], [0.7, float(lively.decision[row])], rtol=0, atol=1e-7)
        assert state.tradable[b].tolist() == [s == TRADABLE for s in lively.status[row]]
        assert bool(state.decide[b]) == bool(lively.decision[row])
    assert state.tradable[:, -1].all()


def test_nothing_that_is_observed_knows_tomorrow(lively: Market, desk: Accounting, make_world: Any) -> None:
    rng = np.random.default_rng(9)
    now = 333

    def noisy(array: Any, noise: Any) -> Any:
        changed = array.copy()
        changed[now + 1 :] = noise(changed[now + 1 :])
        return changed

    def normal(a: Any) -> Any:
        return rng.normal(size=a.shape).astype(a.dtype)

    other = replace(
        lively,
        returns=noisy(lively.returns, normal),
        features=noisy(lively.features, normal),
        market_features=noisy(lively.market_features, normal),
        benchmark=noisy(lively.benchmark, normal),
        status=noisy(lively.status, lambda a: np.full_like(a, FROZEN)),
        decision=noisy(lively.decision, np.logical_not),
    )
    here, there = holding(make_world(lively, desk), [now]), holding(make_world(other, desk), [now])
    for name in State._fields:
        assert torch.equal(getattr(here, name), getattr(there, name)), name
    target = random_targets(1, lively.n)
    assert torch.equal(make_world(lively, desk).execute(target, here), make_world(other, desk).execute(target, there))


def test_many_actions_for_a_state_are_executed_as_each_alone(lively: Market, desk: Accounting, make_world: Any) -> None:
    world = make_world(lively, desk)
    state = holding(world, [100, 201, 360, 353])
    targets = random_targets(4, 6, lively.n)
    several = world.execute(targets, state)
    assert several.shape == (4, 6, lively.n)
    for a in range(6):
        assert_allclose(several[:, a], world.execute(targets[:, a], state), rtol=0, atol=1e-15)
    alone = execute(targets[2, 3].numpy(), state.drifted[2].numpy(), lively.status[360], lively.decision[360], desk)
    assert_allclose(several[2, 3], alone, rtol=0, atol=1e-15)


def test_executing_leaves_the_state_as_it_was(world: World, lively: Market) -> None:
    state = holding(world, [360, 205])
    kept = [field.clone() for field in state]
    statuses = world.status.clone()
    world.execute(random_targets(2, lively.n), state)
    world.outcome(world.execute(random_targets(2, 3, lively.n), state)[:, 0], state)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))
    assert torch.equal(world.status, statuses)


def test_straight_through_is_exact_forward_and_the_identity_backward(
    lively: Market, desk: Accounting, make_world: Any
) -> None:
    world = make_world(lively, desk)
    state = holding(world, [300, 303, 301, 304])  # decision, none, decision, none
    assert state.decide.tolist() == [True, False, True, False]
    target = random_targets(4, lively.n).float().requires_grad_()
    out = world.straight_through(target, state)
    assert out.dtype == torch.float32
    assert_allclose(out.detach(), world.execute(target, state).float(), rtol=0, atol=0)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    out.backward(pull)
    assert target.grad is not None
    assert torch.equal(target.grad, pull * torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None])
    assert not world.execute(target, state).requires_grad


def test_untradable_names_are_masked(world: World, lively: Market) -> None:
    state = holding(world, [100, 210, 360])
    for b, name, kind in ((0, 2, ABSENT), (1, 9, FROZEN), (2, 5, ABSENT)):
        assert lively.status[int(state.row[b]), name] == kind
        assert not state.tradable[b, name]
    assert (state.priors[~state.tradable[:, None].expand_as(state.priors)] == 0).all()
