"""The batched simulator: batches, and the life of its slots."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from finflow.data.market import ABSENT, TRADABLE, Market
from finflow.envs.collect import padded
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import Simulator, Step


def run(simulator: Simulator, targets: NDArray[np.float64]) -> list[tuple[Step, NDArray[Any], NDArray[Any]]]:
    """Step through targets [L, E, n]; each step with the NAV and drawdown after it."""
    steps = []
    for target in targets:
        step = simulator.step(target)
        steps.append((step, simulator.nav, simulator.drawdown))
    return steps


@pytest.mark.parametrize("layout", ["C", "F"])
def test_many_episodes_equal_each_alone_to_the_bit(
    layout: Any, lively: Market, desk: Accounting, reward: RewardModel, episodes: Any, targets: Any, starts: Any
) -> None:
    together = Simulator(lively, desk, reward)
    together.reset(padded(episodes), np.asarray(starts, order=layout))
    lived = run(together, [np.asarray(t, order=layout) for t in targets])
    for slot, rows in enumerate(episodes):
        alone = Simulator(lively, desk, reward)
        alone.reset(rows[None], starts[slot][None])
        for (mine, nav, drawdown), (step, all_nav, all_drawdown) in zip(
            run(alone, targets[:, slot : slot + 1]), lived, strict=True
        ):
            assert_array_equal(mine.executed[0], step.executed[slot])
            assert_array_equal(mine.reward[0], step.reward[slot])
            for one, several in zip(mine.booked, step.booked, strict=True):
                assert_array_equal(one[0], several[slot])
            assert (nav[0], drawdown[0]) == (all_nav[slot], all_drawdown[slot])


def test_targets_in_single_precision_lose_nothing_but_their_rounding(lively: Market, desk: Accounting) -> None:
    simulator = Simulator(lively, desk)
    simulator.reset(np.arange(300, 310)[None])
    target = np.random.default_rng(5).dirichlet(np.ones(lively.n), size=1).astype(np.float32)
    assert_allclose(simulator.step(target).executed.sum(), 1.0, rtol=0, atol=1e-14)


def test_nav_is_the_product_of_net_returns(lively: Market, desk: Accounting, targets: Any) -> None:
    simulator = Simulator(lively, desk)
    simulator.reset(np.tile(np.arange(300, 418), (3, 1)))
    net = np.array([step.booked.net for step, _, _ in run(simulator, targets)])
    assert_allclose((1 + net).prod(0), simulator.nav, rtol=1e-12)


def test_starts_in_cash(lively: Market, desk: Accounting) -> None:
    simulator = Simulator(lively, desk)
    simulator.reset(np.arange(10)[None])
    assert simulator.drifted[0, -1] == simulator.drifted.sum() == simulator.nav[0] == 1.0
    assert simulator.drawdown[0] == 0.0


def test_the_day_after_a_jump_earns_the_day_that_followed_the_decision(make_market: Any) -> None:
    risky = np.arange(12, dtype=np.float64)[:, None] / 100
    market = make_market(risky)
    simulator = Simulator(market, Accounting(0.0))
    simulator.reset(np.array([[2, 3, 9, 5]]))
    gross, next_rows = [], []
    for _ in range(4):
        step = simulator.step(np.array([[1.0, 0.0]]))
        gross.append(step.booked.gross[0])
        next_rows.append(int(step.next_row[0]))
    assert_allclose(gross, [0.03, 0.04, 0.10, 0.06], rtol=0, atol=1e-15)
    assert next_rows == [3, 9, 5, 6]


def test_a_delisted_name_earns_its_last_return_and_is_closed_at_the_next_close(make_market: Any) -> None:
    risky, status = np.zeros((8, 2)), np.full((8, 3), TRADABLE, dtype=np.int8)
    risky[4, 0], status[4:, 0] = -0.4, ABSENT  # last price at row 3
    market = make_market(risky, status=status, decision=np.array([True] + [False] * 7))
    simulator = Simulator(market, Accounting(0.01, no_trade_band=1.9, max_turnover=0.5))
    simulator.reset(np.arange(7)[None], np.array([[0.5, 0.3, 0.2]]))
    days = [simulator.step(np.array([[0.0, 1.0, 0.0]])) for _ in range(7)]
    assert [d.booked.turnover[0] > 0 for d in days] == [False] * 4 + [True, False, False]
    assert_allclose(days[3].booked.gross, -0.2, rtol=0, atol=1e-15)
    left = 0.5 * 0.6 / 0.8
    assert_allclose(days[4].booked.cost, 0.01 * left, rtol=1e-14)
    assert_allclose(days[4].executed[0], [0.0, 0.3 / 0.8, 0.2 / 0.8 + left], rtol=0, atol=1e-15)


def test_time_limits_truncate_and_do_not_terminate(lively: Market, desk: Accounting, targets: Any) -> None:
    simulator = Simulator(lively, desk)
    simulator.reset(padded([np.arange(300, 303), np.arange(300, 305), np.arange(300, 301)]))
    active, truncated, rows = [], [], []
    for target in targets[:6]:
        active.append(simulator.active.tolist())
        step = simulator.step(target)
        assert not step.terminated.any()
        truncated.append(step.truncated.tolist())
        rows.append(step.next_row.tolist())
    assert active == [[i < 3, i < 5, i < 1] for i in range(6)]
    assert truncated == [[i == 2, i == 4, i == 0] for i in range(6)]
    assert rows == [[min(301 + i, 303), min(301 + i, 305), 301] for i in range(6)]


def test_finished_episodes_stand_still(lively: Market, desk: Accounting, reward: RewardModel, targets: Any) -> None:
    simulator = Simulator(lively, desk, reward)
    simulator.reset(padded([np.arange(300, 302), np.arange(300, 340), np.arange(300, 340)]))
    for target in targets[:2]:
        simulator.step(target)
    frozen = simulator.nav[0], simulator.drawdown[0], simulator.drifted[0].copy(), simulator.row[0]
    for target in targets[2:30]:
        simulator.step(target)
    assert (simulator.nav[0], simulator.drawdown[0], simulator.row[0]) == (frozen[0], frozen[1], frozen[3])
    assert_array_equal(simulator.drifted[0], frozen[2])


def test_ruin_terminates_on_its_day(make_market: Any, reward: RewardModel) -> None:
    risky = np.zeros((20, 2))
    risky[4, 0] = -1.0
    market = make_market(risky, benchmark=np.zeros(20))
    simulator = Simulator(market, Accounting(0.001), reward)
    simulator.reset(np.tile(np.arange(2, 12), (2, 1)))
    target = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    assert not simulator.step(target).terminated.any()
    step = simulator.step(target)
    assert step.terminated.tolist() == [True, False]
    assert not step.truncated.any()
    assert simulator.active.tolist() == [False, True]
    assert step.next_row.tolist() == simulator.row.tolist() == [4, 4]
    assert simulator.nav[0] == 0.0
    assert np.isfinite(step.reward).all()
    later = [simulator.step(target) for _ in range(8)]
    assert not any(s.terminated[0] or s.truncated[0] for s in later)
    assert [bool(s.truncated[1]) for s in later] == [False] * 7 + [True]
    assert simulator.nav[0] == 0.0


def test_what_rounding_leaves_of_a_portfolio_is_ruin_too(make_market: Any, reward: RewardModel) -> None:
    risky = np.zeros((6, 2))
    risky[2, 0] = -1.0
    simulator = Simulator(make_market(risky, benchmark=np.zeros(6)), Accounting(0.0), reward)
    simulator.reset(np.tile(np.arange(1, 5), (3, 1)))
    left = np.array([3e-16, 0.9e-4, 1.1e-4])
    step = simulator.step(np.stack([1 - left, 0 * left, left], axis=1))
    assert step.terminated.tolist() == [True, True, False]
    assert np.isfinite(step.reward).all()


def test_ruin_on_the_last_day_is_not_a_time_limit(make_market: Any) -> None:
    risky = np.zeros((6, 1))
    risky[3] = -1.0
    simulator = Simulator(make_market(risky), Accounting(0.0))
    simulator.reset(np.array([[1, 2]]))
    simulator.step(np.array([[1.0, 0.0]]))
    step = simulator.step(np.array([[1.0, 0.0]]))
    assert (bool(step.terminated[0]), bool(step.truncated[0])) == (True, False)


def test_restarting_a_slot_leaves_the_others_alone(
    lively: Market, desk: Accounting, reward: RewardModel, targets: Any
) -> None:
    plain, restarted = (Simulator(lively, desk, reward) for _ in range(2))
    rows = np.tile(np.arange(300, 400), (3, 1))
    for simulator in (plain, restarted):
        simulator.reset(rows)
    for day, target in enumerate(targets[:100]):
        if day in (1, 40):
            start = np.full(lively.n, 1 / lively.n) if day == 40 else np.eye(lively.n)[-1]
            restarted.restart(1, np.arange(140, 150), start if day == 40 else None)
            assert restarted.row.tolist()[::2] == plain.row.tolist()[::2]
            assert (restarted.nav[1], restarted.drawdown[1], restarted.row[1]) == (1.0, 0.0, 140)
            assert_array_equal(restarted.drifted[1], start)
        one, other = plain.step(target), restarted.step(target)
        for slot in (0, 2):
            assert_array_equal(one.executed[slot], other.executed[slot])
            assert one.reward[slot] == other.reward[slot]
            assert one.truncated[slot] == other.truncated[slot]
        assert bool(other.truncated[1]) == (day in (10, 49))


def test_what_is_handed_in_is_not_written_to(lively: Market, desk: Accounting) -> None:
    rows, start = np.tile(np.arange(300, 310), (2, 1)), np.full((2, lively.n), 1 / lively.n)
    kept = rows.copy(), start.copy()
    simulator = Simulator(lively, desk)
    simulator.reset(rows, start)
    simulator.restart(0, np.arange(100, 105))
    assert_array_equal(rows, kept[0])
    assert_array_equal(start, kept[1])


def test_what_a_step_returned_is_not_written_to_later(lively: Market, desk: Accounting, reward: RewardModel) -> None:
    simulator = Simulator(lively, desk, reward)
    simulator.reset(np.tile(np.arange(300, 320), (2, 1)))
    target = np.full((2, lively.n), 1 / lively.n)
    steps = [simulator.step(target) for _ in range(3)]
    kept = [np.copy(s.before) for s in steps], [np.copy(s.drawdown_before) for s in steps]
    simulator.restart(0, np.arange(100, 110))
    simulator.step(target)
    for step, before, drawdown in zip(steps, *kept, strict=True):
        assert_array_equal(step.before, before)
        assert_array_equal(step.drawdown_before, drawdown)
