"""What the ledger keeps over any path: the simplex, the identity of returns and NAV, numpy equal to torch."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from finflow.data.market import ABSENT, FROZEN, TRADABLE
from finflow.envs.ledger import Accounting, book, execute, traded

Rules = st.builds(
    Accounting,
    cost_rate=st.sampled_from([0.0, 0.0015, 0.02]),
    max_weight=st.none() | st.floats(0.05, 1.0),
    min_cash=st.sampled_from([0.0, 0.02, 0.5]),
    no_trade_band=st.sampled_from([0.0, 0.05, 0.5]),
    max_turnover=st.none() | st.floats(0.01, 2.0),
)


def draw_day(rng: np.random.Generator, batch: int, n: int) -> tuple[Any, Any, Any]:
    """Targets with exact zeros and corners, any status, returns that may wipe a name out."""
    target = rng.exponential(size=(batch, n)) ** rng.choice([1.0, 8.0]) * (rng.random((batch, n)) < 0.7)
    status = rng.choice([ABSENT, FROZEN, TRADABLE], p=[0.1, 0.1, 0.8], size=(batch, n)).astype(np.int8)
    status[:, -1] = TRADABLE
    returns = np.expm1(rng.standard_t(3, size=(batch, n)) * 0.03)
    returns[rng.random((batch, n)) < 0.01] = -1.0
    returns[:, -1] = 1e-4
    return target, status, returns


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rules=Rules, seed=st.integers(0, 2**32), n=st.sampled_from([2, 3, 9, 31]))
def test_long_paths_stay_on_the_simplex_and_add_up(rules: Accounting, seed: int, n: int) -> None:
    rng, batch = np.random.default_rng(seed), 4
    weights = np.zeros((batch, n))
    weights[:, -1] = 1.0
    dollars, growth = weights * 1e6, np.ones(batch)  # the same account kept in money
    for _ in range(80):
        target, status, returns = draw_day(rng, batch, n)
        held = execute(target, weights, status, rng.random(batch) < 0.8, rules)
        day = book(held, weights, returns, rules.cost_rate)
        assert (held >= 0).all()
        assert_allclose(held.sum(-1), 1.0, rtol=0, atol=1e-12)
        if day.gross.min() < -0.9:
            return  # what is left of 1 + w . r has lost its digits
        assert_allclose(day.drifted.sum(-1), 1.0, rtol=0, atol=1e-12)
        assert (day.drifted >= 0).all()
        nav = dollars.sum(-1)
        bill = rules.cost_rate * abs(held * nav[:, None] - dollars)[:, :-1].sum(-1)
        dollars = held * (nav - bill)[:, None] * (1.0 + returns)
        growth *= 1.0 + day.net
        assert_allclose(dollars.sum(-1) / 1e6, growth, rtol=1e-12, atol=1e-300)
        weights = day.drifted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rules=Rules, seed=st.integers(0, 2**32))
def test_rules_hold_where_they_can(rules: Accounting, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, status, _ = draw_day(rng, 16, 6)
    before = rng.dirichlet(np.ones(6), size=16)
    decide = rng.random(16) < 0.8
    after = execute(target, before, status, decide, rules)
    closed = np.where(status == ABSENT, 0.0, before)
    closed[:, -1] += 1.0 - closed.sum(-1)
    assert (after[status == ABSENT] == 0.0).all()
    assert_allclose(after[status == FROZEN], before[status == FROZEN], rtol=0, atol=1e-15)
    assert_allclose(after[~decide], closed[~decide], rtol=0, atol=1e-15)
    way = traded(after, closed)
    if rules.max_turnover is not None:
        assert (way <= rules.max_turnover + 1e-12).all()
    else:  # then a decision arrives: nothing, or a trade of at least the band that keeps cap and cash
        moved = decide & (way > 1e-12)
        assert (way[moved] >= rules.no_trade_band - 1e-12).all()
        free = (status[:, :-1] == TRADABLE) & moved[:, None]
        if rules.max_weight is not None:
            assert (after[:, :-1][free] <= rules.max_weight + 1e-12).all()
        invested = (after[:, :-1] * free).sum(-1)
        assert ((after[:, -1] >= rules.min_cash - 1e-12) | (invested < 1e-12))[moved].all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.5, 4.0))
def test_borrowing_adds_up_whatever_is_frozen_or_ends(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    weights = np.zeros((8, 6))
    weights[:, -1] = 1.0
    for _ in range(20):
        _, status, returns = draw_day(rng, 8, 6)
        target = scale * rng.dirichlet(np.ones(6), size=8)
        target[:, -1] = 1.0 - target[:, :-1].sum(-1)
        decide = rng.random(8) < 0.5
        held = execute(target, weights, status, decide, Accounting(0.001))
        assert_allclose(held.sum(-1), 1.0, rtol=0, atol=1e-12)
        twin = execute(*(torch.from_numpy(a) for a in (target, weights, status, decide)), Accounting(0.001))
        assert_allclose(twin.numpy(), held, rtol=0, atol=1e-14)
        day = book(held, weights, returns.clip(-0.02, 0.02), 0.001)
        assert_allclose(day.drifted.sum(-1), 1.0, rtol=0, atol=1e-12)
        weights = day.drifted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), cap=st.floats(0.2, 1.0), cash=st.floats(0.0, 0.3))
def test_every_point_that_the_rules_allow_is_reached(seed: int, cap: float, cash: float) -> None:
    rng = np.random.default_rng(seed)
    risky = rng.dirichlet(np.full(7, 0.3)) * rng.uniform(0, 1 - cash)
    wanted = np.append(np.minimum(risky, cap), 0.0)
    wanted[-1] = 1.0 - wanted.sum()
    before = rng.dirichlet(np.full(8, 0.3))
    rules = Accounting(0.001, cap, cash)
    open_ = np.full(8, TRADABLE, dtype=np.int8)
    assert_allclose(execute(wanted, before, open_, np.array(True), rules), wanted, rtol=0, atol=1e-15)


def test_every_corner_is_reached() -> None:
    open_ = np.full((31, 31), TRADABLE, dtype=np.int8)
    before = np.full((31, 31), 1 / 31)
    assert_allclose(
        execute(np.eye(31), before, open_, np.ones(31, bool), Accounting(0.001)), np.eye(31), rtol=0, atol=1e-15
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rules=Rules, seed=st.integers(0, 2**32), n=st.sampled_from([2, 9, 31]))
def test_torch_gives_the_same_numbers(rules: Accounting, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    target, status, returns = draw_day(rng, 8, n)
    before, decide = rng.dirichlet(np.ones(n), size=8), rng.random(8) < 0.8
    here = execute(target, before, status, decide, rules)
    there = execute(*(torch.from_numpy(a) for a in (target, before, status, decide)), rules)
    assert there.dtype == torch.float64
    assert_allclose(there.numpy(), here, rtol=0, atol=1e-15)
    days = book(here, before, returns, rules.cost_rate)
    twins = book(torch.from_numpy(here), torch.from_numpy(before), torch.from_numpy(returns), rules.cost_rate)
    for mine, other in zip(days, twins, strict=True):
        assert_allclose(other.numpy(), mine, rtol=1e-12, atol=1e-14)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rules=Rules, seed=st.integers(0, 2**32), n=st.sampled_from([2, 3, 9, 31]))
def test_an_open_day_is_the_general_case_to_the_bit(rules: Accounting, seed: int, n: int) -> None:
    """No status at all says what a status of TRADABLE everywhere says; a target may be empty, or borrow."""
    rng = np.random.default_rng(seed)
    target, _, _ = draw_day(rng, 8, n)
    target[0], target[1] = 0.0, 1.5 / (n - 1)
    target[1, -1] = -0.5
    held = rng.dirichlet(np.ones(n), size=8)
    status = np.full((8, n), TRADABLE, dtype=np.int8)
    wanted = execute(target, held, status, np.ones(8, dtype=np.bool_), rules)
    assert_array_equal(execute(target, held, None, None, rules), wanted)
