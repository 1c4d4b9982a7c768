"""Who fills the offline data: portfolios, their frequencies, and what they reach."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose

from finflow.data.market import TRADABLE, Market
from finflow.envs.collect import Personas, behave, draw_personas
from finflow.envs.ledger import Accounting
from finflow.envs.simulator import State, World

COUNT = 20_000


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world(lively: Market, make_world: Any) -> World:
    return make_world(lively, Accounting(0.001))


def holding(world: World, count: int, tradable_only: bool = False) -> State:
    rows = torch.randint(0, 599, (count,), generator=stream(1))
    weights = torch.empty(count, world.returns.shape[1], dtype=torch.float64).exponential_(generator=stream(2))
    if tradable_only:
        weights *= world.status[rows] == TRADABLE
    return world.observe(rows, weights / weights.sum(-1, keepdim=True), torch.zeros(count).double())


def one(mixture: list[float], blend: float = 0.0, noise: float = 0.0, rate: float = 1.0, count: int = 1) -> Personas:
    rows = [torch.tensor([mixture] * count).float(), *(torch.full((count,), v) for v in (blend, noise, rate))]
    return Personas(*rows)


def test_every_kind_occurs_as_often_as_it_is_said_to() -> None:
    personas = draw_personas(COUNT, 5, stream())
    assert_allclose(personas.mixture.sum(-1), 1.0, rtol=0, atol=1e-5)
    pure = personas.mixture.amax(-1) == 1.0
    chosen = personas.mixture.argmax(-1)
    kept = personas.blend == 0
    near = {"atol": 0.011}
    for k in range(5):
        assert_allclose((pure & kept & (chosen == k)).float().mean(), 0.45 / 5, **near)
    assert_allclose((pure & kept & (chosen == 5)).float().mean(), 0.15, **near)
    assert_allclose((~pure & kept).float().mean(), 0.20, **near)
    assert_allclose((personas.blend == 1).float().mean(), 0.20, **near)
    assert set(personas.blend.tolist()) == {0.0, 1.0}
    assert_allclose((personas.noise > 0).float().mean(), 0.5, **near)
    assert_allclose((personas.rate == 0).float().mean(), 0.2, **near)
    assert_allclose((personas.rate == 1).float().mean(), 0.2, **near)
    partial = personas.rate[(personas.rate > 0) & (personas.rate < 1)]
    assert 0.02 <= partial.min() < 0.03 < 0.39 < partial.max() <= 0.4


def test_holding_is_independent_of_the_kind() -> None:
    personas = draw_personas(COUNT, 5, stream())
    random_ones = personas.blend == 1
    assert_allclose((personas.rate[random_ones] == 0).float().mean(), 0.2, rtol=0, atol=0.03)
    assert_allclose((personas.noise[random_ones] > 0).float().mean(), 0.5, rtol=0, atol=0.03)


def test_the_mixtures_fill_their_simplex() -> None:
    personas = draw_personas(COUNT, 5, stream())
    mixed = personas.mixture[personas.mixture.amax(-1) < 1]
    assert_allclose(mixed.mean(0), 1 / 6, rtol=0, atol=0.01)
    assert_allclose(mixed.var(0), 5 / 36 / 7, rtol=0.1)  # Dirichlet(1) of six


def test_targets_lie_on_the_simplex_of_what_can_be_traded(world: World) -> None:
    state = holding(world, COUNT)
    target = behave(draw_personas(COUNT, 5, stream()), state, stream(3))
    assert target.dtype == torch.float64
    assert (target >= 0).all()
    assert_allclose(target.sum(-1), 1.0, rtol=0, atol=1e-12)
    assert (target[~state.tradable] == 0).all()


def test_rate_0_holds(world: World) -> None:
    state = holding(world, 2000, tradable_only=True)
    target = behave(one([1, 0, 0, 0, 0, 0], noise=0.4, rate=0.0, count=2000), state, stream())
    assert_allclose(target, state.drifted, rtol=0, atol=1e-15)
    assert_allclose(world.execute(target, state), state.drifted, rtol=0, atol=1e-15)


def test_rate_0_keeps_what_is_frozen_and_what_is_free(world: World) -> None:
    row = 210  # one name is frozen
    weights = torch.full((1, 21), 1 / 21, dtype=torch.float64)
    state = world.observe(torch.tensor([row]), weights, torch.zeros(1).double())
    assert not state.tradable.all()
    target = behave(one([1, 0, 0, 0, 0, 0], rate=0.0), state, stream())
    assert_allclose(world.execute(target, state), weights, rtol=0, atol=1e-15)


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_a_single_prior_is_followed_at_its_rate(world: World, rate: float) -> None:
    state = holding(world, 500, tradable_only=True)
    for k in range(5):
        target = behave(one([float(i == k) for i in range(6)], rate=rate, count=500), state, stream())
        assert_allclose(target, (1 - rate) * state.drifted + rate * state.priors[:, k].double(), rtol=0, atol=1e-7)


def test_the_sixth_basis_portfolio_is_equal_weight_over_what_can_be_traded(world: World) -> None:
    state = holding(world, 500)
    target = behave(one([0.0] * 5 + [1.0], count=500), state, stream())
    risky = state.tradable[:, :-1].double()
    assert_allclose(target[:, :-1], risky / risky.sum(-1, keepdim=True), rtol=0, atol=1e-7)
    assert_allclose(target[:, -1], 0.0, rtol=0, atol=0)


def test_random_portfolios_cover_concentrated_and_spread_points(world: World) -> None:
    state = holding(world, COUNT)
    target = behave(one([0.0] * 5 + [1.0], blend=1.0, count=COUNT), state, stream())
    largest = target.amax(-1)
    assert (largest > 0.6).float().mean() > 0.01
    assert (largest < 0.2).float().mean() > 0.03
    assert {int(i) for i in target.argmax(-1)} == set(range(21))
    assert_allclose(target[:, -1].mean(), (1 / state.tradable.sum(-1)).mean(), rtol=0.05)


def test_where_nothing_can_be_traded_all_is_cash(lively: Market, make_world: Any) -> None:
    status = lively.status.copy()
    status[300, :-1] = 0
    world = make_world(replace(lively, status=status), Accounting(0.001))
    weights = torch.eye(21).double()[:1]
    state = world.observe(torch.tensor([300]), weights, torch.zeros(1).double())
    for rate in (0.0, 0.3, 1.0):
        target = behave(one([0.0] * 5 + [1.0], noise=0.4, rate=rate), state, stream())
        assert target[0].tolist() == [0.0] * 20 + [1.0]


def test_the_same_generator_gives_the_same_behaviours(world: World) -> None:
    state = holding(world, 50)
    first, again, other = (behave(draw_personas(50, 5, stream(s)), state, stream(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
