"""The ledger against arithmetic done by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from finflow.config.compose import load
from finflow.data.market import ABSENT, FROZEN, TRADABLE
from finflow.envs.ledger import Accounting, book, execute, traded

CASH_ONLY = np.array([0.0, 0.0, 0.0, 1.0])
OPEN = np.full(4, TRADABLE, dtype=np.int8)
YES = np.array(True)
FREE = Accounting(cost_rate=0.001)


def status(**names: int) -> np.ndarray:
    """All of A, B, C and cash tradable, but for `names`."""
    found = OPEN.copy()
    for name, value in names.items():
        found["ABC".index(name)] = value
    return found


def executed(target: Any, drifted: Any, state: Any = OPEN, decide: Any = YES, **rules: Any) -> np.ndarray:
    return execute(np.array(target), np.array(drifted), state, decide, Accounting(cost_rate=0.001, **rules))


def test_turnover_counts_both_legs_of_risky_assets_and_never_cash() -> None:
    before, after = np.array([0.5, 0.3, 0.1, 0.1]), np.array([0.2, 0.4, 0.1, 0.3])
    assert_allclose(traded(after, before), 0.4, rtol=0, atol=1e-15)  # .3 sold, .1 bought; the .2 into cash is no trade


def test_one_day_by_hand() -> None:
    before, after = np.array([0.5, 0.3, 0.1, 0.1]), np.array([0.2, 0.4, 0.1, 0.3])
    returns = np.array([0.10, -0.05, 0.02, 0.0001])
    day = book(after, before, returns, 0.002)
    growth = 1 + 0.02 - 0.02 + 0.002 + 0.00003
    assert_allclose(day.turnover, 0.4, rtol=0, atol=1e-15)
    assert_allclose(day.cost, 0.0008, rtol=0, atol=1e-18)
    assert_allclose(day.gross, growth - 1, rtol=0, atol=1e-15)
    assert_allclose(day.net, (1 - 0.0008) * growth - 1, rtol=0, atol=1e-15)
    assert_allclose(day.drifted, np.array([0.22, 0.38, 0.102, 0.30003]) / growth, rtol=0, atol=1e-15)


def test_the_first_purchase_is_charged() -> None:
    day = book(np.array([0.6, 0.2, 0.2, 0.0]), CASH_ONLY, np.zeros(4), 0.0015)
    assert_allclose(day.turnover, 1.0, rtol=0, atol=1e-15)
    assert_allclose(day.net, -0.0015, rtol=0, atol=1e-15)


def test_cost_is_charged_on_what_is_executed_not_on_what_was_wanted() -> None:
    after = executed([1.0, 0.0, 0.0, 0.0], CASH_ONLY, max_weight=0.25)
    assert_allclose(book(after, CASH_ONLY, np.zeros(4), 0.01).cost, 0.0025, rtol=0, atol=1e-17)


def test_cash_earns_its_yield_and_costs_nothing_to_hold() -> None:
    day = book(CASH_ONLY, CASH_ONLY, np.array([0.5, 0.5, 0.5, 0.0002]), 0.01)
    assert_allclose([day.turnover, day.gross, day.net], [0.0, 0.0002, 0.0002], rtol=0, atol=1e-16)


def test_daily_equal_weight_pays_for_its_drift() -> None:
    equal = np.array([0.5, 0.5, 0.0])
    day = book(equal, equal, np.array([0.1, -0.1, 0.0]), 0.001)
    assert_allclose(day.drifted, [0.55, 0.45, 0.0], rtol=0, atol=1e-15)
    assert_allclose(traded(equal, day.drifted), 0.1, rtol=0, atol=1e-15)


def test_a_portfolio_that_loses_everything() -> None:
    day = book(np.array([1.0, 0.0, 0.0, 0.0]), CASH_ONLY, np.array([-1.0, 0.1, 0.1, 0.0]), 0.001)
    assert day.gross == day.net == -1.0
    assert_allclose(day.drifted, np.zeros(4), rtol=0, atol=0)


def test_a_target_of_any_positive_sum_is_normalised() -> None:
    assert_allclose(executed([2.0, 1.0, 0.0, 1.0], CASH_ONLY), [0.5, 0.25, 0.0, 0.25], rtol=0, atol=1e-15)


def test_a_target_of_zeros_is_all_cash() -> None:
    held = [0.2, 0.3, 0.4, 0.1]
    assert_allclose(executed([0.0] * 4, held), CASH_ONLY, rtol=0, atol=1e-15)
    assert_allclose(executed([0.0] * 4, held, status(B=FROZEN)), [0.0, 0.3, 0.0, 0.7], rtol=0, atol=1e-15)


@pytest.mark.parametrize("decide", [True, False])
def test_an_ended_position_is_closed_into_cash_on_any_day(decide: bool) -> None:
    held = [0.2, 0.3, 0.4, 0.1]
    after = executed([0.0, 0.9, 0.1, 0.0], held, status(B=ABSENT), np.array(decide))
    assert_allclose(after, [0.0, 0.0, 1.0, 0.0] if decide else [0.2, 0.0, 0.4, 0.4], rtol=0, atol=1e-15)
    assert_allclose(book(after, np.array(held), np.zeros(4), 0.01).cost, 0.011 if decide else 0.003, rtol=0, atol=1e-17)


def test_a_frozen_name_stays_and_the_target_fills_the_rest() -> None:
    after = executed([0.5, 0.25, 0.25, 0.0], [0.2, 0.3, 0.4, 0.1], status(B=FROZEN))
    assert_allclose(after, [0.7 * 2 / 3, 0.3, 0.7 / 3, 0.0], rtol=0, atol=1e-15)


def test_a_frozen_name_that_is_not_held_cannot_be_bought() -> None:
    assert_allclose(executed([0.0, 1.0, 0.0, 0.0], CASH_ONLY, status(B=FROZEN)), CASH_ONLY, rtol=0, atol=1e-15)


def test_without_a_decision_everything_is_held() -> None:
    held = [0.2, 0.3, 0.4, 0.1]
    rules = {"max_weight": 0.1, "min_cash": 0.5, "no_trade_band": 1.9, "max_turnover": 0.1}
    assert_allclose(executed([1.0, 0.0, 0.0, 0.0], held, OPEN, np.array(False), **rules), held, rtol=0, atol=1e-15)


def test_the_cap_sends_its_excess_to_cash() -> None:
    assert_allclose(
        executed([0.6, 0.3, 0.1, 0.0], CASH_ONLY, max_weight=0.25), [0.25, 0.25, 0.1, 0.4], rtol=0, atol=1e-15
    )


def test_the_cap_leaves_cash_and_frozen_names_alone() -> None:
    after = executed([0.5, 0.0, 0.0, 0.5], [0.2, 0.6, 0.0, 0.2], status(B=FROZEN), max_weight=0.1)
    assert_allclose(after, [0.1, 0.6, 0.0, 0.3], rtol=0, atol=1e-15)


def test_minimum_cash_is_taken_from_all_names_alike() -> None:
    assert_allclose(
        executed([0.6, 0.3, 0.1, 0.0], CASH_ONLY, min_cash=0.2), [0.48, 0.24, 0.08, 0.2], rtol=0, atol=1e-15
    )
    assert_allclose(executed([0.3, 0.2, 0.1, 0.4], CASH_ONLY, min_cash=0.2), [0.3, 0.2, 0.1, 0.4], rtol=0, atol=1e-15)


def test_minimum_cash_cannot_sell_a_frozen_name() -> None:
    after = executed([1.0, 0.0, 0.0, 0.0], [0.0, 0.9, 0.0, 0.1], status(B=FROZEN), min_cash=0.5)
    assert_allclose(after, [0.0, 0.9, 0.0, 0.1], rtol=0, atol=1e-15)


def test_the_band_leaves_small_trades_undone_and_only_those() -> None:
    held = [0.25, 0.25, 0.25, 0.25]
    assert_allclose(executed([0.27, 0.23, 0.25, 0.25], held, no_trade_band=0.05), held, rtol=0, atol=1e-15)
    assert_allclose(
        executed([0.28, 0.22, 0.25, 0.25], held, no_trade_band=0.05), [0.28, 0.22, 0.25, 0.25], rtol=0, atol=1e-15
    )


def test_the_turnover_cap_goes_part_of_the_way() -> None:
    after = executed([0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], max_turnover=0.5)
    assert_allclose(after, [0.75, 0.25, 0.0, 0.0], rtol=0, atol=1e-15)
    assert_allclose(
        executed([1.0, 0.0, 0.0, 0.0], CASH_ONLY, max_turnover=0.4), [0.4, 0.0, 0.0, 0.6], rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("rules", [{"max_turnover": 0.01}, {"no_trade_band": 1.9}])
def test_forced_closings_happen_whatever_the_turnover_rules_say(rules: dict[str, float]) -> None:
    after = executed([0.25, 0.0, 0.5, 0.25], [0.25, 0.5, 0.25, 0.0], status(B=ABSENT), **rules)
    assert after[1] == 0.0
    assert traded(after, np.array([0.25, 0.0, 0.25, 0.5])) <= 0.01 + 1e-15  # beyond the closing, the rules hold


def test_all_rules_together_in_their_order() -> None:
    held = [0.10, 0.20, 0.30, 0.40]  # A frozen
    rules = {"max_weight": 0.5, "min_cash": 0.25, "no_trade_band": 0.05, "max_turnover": 0.12}
    after = executed([0.0, 0.9, 0.1, 0.0], held, status(A=FROZEN), **rules)
    # spread over .9: B .81, C .09; cap: B .5, cash .31 (enough); change of B +.3, C -.21: .51, cut to .12
    part = 0.12 / 0.51
    assert_allclose(after, [0.1, 0.2 + 0.3 * part, 0.3 - 0.21 * part, 0.4 - 0.09 * part], rtol=0, atol=1e-15)


BORROWED = [0.8, 0.7, 0.0, -0.5]


def test_borrowed_cash_is_charged_the_cash_yield_and_stays_borrowed() -> None:
    held = executed(BORROWED, CASH_ONLY)
    assert_allclose(held, BORROWED, rtol=0, atol=1e-15)
    day = book(held, np.array(BORROWED), np.array([0.02, -0.01, 0.0, 0.01]), 0.001)
    assert_allclose(day.gross, 0.8 * 0.02 - 0.7 * 0.01 - 0.5 * 0.01, rtol=0, atol=1e-15)  # .004: .005 for the loan
    assert_allclose(day.drifted, np.array([0.816, 0.693, 0.0, -0.505]) / 1.004, rtol=0, atol=1e-15)
    still = executed([0.0, 0.0, 1.0, 0.0], day.drifted, decide=np.array(False))
    assert_allclose(still, day.drifted, rtol=0, atol=1e-15)
    assert_allclose(still.sum(), 1.0, rtol=0, atol=1e-15)


def test_borrowing_beside_frozen_and_ended_names_still_sums_to_one() -> None:
    after = executed([0.6, 0.9, 0.0, -0.5], BORROWED, status(A=FROZEN))
    assert_allclose(after, [0.8, 0.9, 0.0, -0.7], rtol=0, atol=1e-15)
    after = executed([0.6, 0.9, 0.0, -0.5], BORROWED, status(A=ABSENT))
    assert_allclose(after, [0.0, 0.9, 0.0, 0.1], rtol=0, atol=1e-15)
    after = executed([0.0, 0.5, 0.0, 0.5], [1.3, 0.2, 0.0, -0.5], status(A=FROZEN))  # the frozen name is on credit
    assert_allclose(after, [1.3, 0.0, 0.0, -0.3], rtol=0, atol=1e-15)


def test_what_rounding_leaves_below_zero_is_no_loan() -> None:
    held = np.array([0.5, 0.5, 0.0, -1e-12])
    assert executed([1.0, 0.0, 0.0, 0.0], held, decide=np.array(False))[-1] == 0.0


def test_the_rules_of_a_configuration() -> None:
    rules = ["env.limits.max_weight=0.2", "env.limits.min_cash=0.01", "env.limits.no_trade_band=0.02"]
    env = load("pretrain", [*rules, "env.limits.max_turnover=0.5", "env.cost_bps=7", "env.slippage_bps=2"]).env
    assert Accounting.of(env) == Accounting(0.0009, 0.2, 0.01, 0.02, 0.5)


def test_gradients_never_pass_and_inputs_stay_as_they_were() -> None:
    target, held = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).double(), torch.tensor([[0.5, 0.2, 0.2, 0.1]]).double()
    kept = target.clone(), held.clone()
    execute(target, held, torch.tensor(status(A=ABSENT, C=FROZEN))[None], torch.tensor([True]), FREE)
    assert torch.equal(target, kept[0])
    assert torch.equal(held, kept[1])
