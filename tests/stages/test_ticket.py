"""Order tickets: what is ordered leads to the target, in whole lots, and is paid for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finflow.data.market import CASH
from finflow.errors import DataError
from finflow.stages.ticket import read_holdings, ticket

ASSETS = ("AA", "BB", "CC", CASH)
PRICES = np.array([10.0, 50.0, 200.0])


def test_an_order_by_hand() -> None:
    """10,000 in cash; AA to .5, BB to .3: 500 and 60 shares, at 15 bp 12; the rest is left over."""
    target = np.array([0.5, 0.3, 0.0004, 0.1996])
    made = ticket(ASSETS, PRICES, np.eye(4)[3], target, capital=1e4, cost_rate=0.0015, min_trade=0.001, lot=1)
    first, second = made.orders
    assert (first.asset, first.shares, first.price, first.notional) == ("AA", 500.0, 10.0, 5000.0)
    assert (second.asset, second.shares, second.notional) == ("BB", 60.0, 3000.0)
    assert (first.cost, second.cost, made.cost) == pytest.approx((7.5, 4.5, 12.0))
    assert made.cash == pytest.approx(1988.0)
    assert made.turnover == pytest.approx(0.8)
    assert first.after == pytest.approx(5000 / 9988)
    assert made.cash_weight == pytest.approx(1988 / 9988)


def test_lots_and_small_trades_are_rounded_towards_what_is_held() -> None:
    before, target = np.array([0.2, 0.3, 0.5, 0.0]), np.array([0.2005, 0.48, 0.3, 0.0195])
    made = ticket(ASSETS, PRICES, before, target, capital=1e5, cost_rate=0.0, min_trade=0.001, lot=100)
    assert {order.asset: order.shares for order in made.orders} == {"BB": 300.0, "CC": -100.0}
    assert made.cash == pytest.approx(5000.0)


def test_what_shrinks_below_the_smallest_trade_is_left_out() -> None:
    """Cash for a tenth of both purchases: 0.0999 of the one is an order, 0.0001 of the other is none."""
    before, target = np.array([0.0, 0.0, 0.9, 0.1]), np.array([0.999, 0.002, 0.9, 0.0])
    for capital in (None, 1e6):
        made = ticket(ASSETS, PRICES, before, target, capital=capital, cost_rate=0.0, min_trade=0.001, lot=1)
        assert [order.asset for order in made.orders] == ["AA"]


def test_without_a_capital_weights_alone_are_ordered() -> None:
    before, target = np.array([0.2, 0.3, 0.0, 0.5]), np.array([0.3, 0.1, 0.0, 0.6])
    made = ticket(ASSETS, PRICES, before, target, capital=None, cost_rate=0.01, min_trade=0.0, lot=1)
    assert [(order.asset, order.after, order.shares) for order in made.orders] == [("BB", 0.1, None), ("AA", 0.3, None)]
    assert (made.capital, made.cash) == (None, None)
    assert made.turnover == pytest.approx(0.3)
    assert made.cash_weight == pytest.approx(0.6 - 0.003)


def test_what_has_no_price_is_not_ordered() -> None:
    prices = np.array([np.nan, 50.0, 200.0])
    target = np.array([0.5, 0.3, 0.2, 0.0])
    made = ticket(ASSETS, prices, np.eye(4)[3], target, capital=1e4, cost_rate=0.0, min_trade=0.0, lot=1)
    assert {order.asset for order in made.orders} == {"BB", "CC"}


def test_what_is_sold_whole_leaves_no_share() -> None:
    """14 shares at 33.30 are 13.999... after their way through weights."""
    for shares, price in ((14, 33.30), (300, 7.77), (1900, 0.03)):
        worth = np.array([shares * price, 1000.0])
        before = worth / worth.sum()
        made = ticket(("AA", CASH), np.array([price]), before, np.array([0.0, 1.0]),
                      capital=float(worth.sum()), cost_rate=0.0, min_trade=0.0, lot=1)  # fmt: skip
        assert [order.shares for order in made.orders] == [-shares]


def test_coins_have_parts() -> None:
    target = np.array([0.2, 0.8])
    made = ticket(("BTC", CASH), np.array([60_000.0]), np.array([0.0, 1.0]), target,
                  capital=1e4, cost_rate=0.0, min_trade=0.0, lot=0.0001)  # fmt: skip
    assert made.orders[0].shares == pytest.approx(0.0333)


def test_weights_alone_are_paid_for_too() -> None:
    """Nineteen sales that are too small to be made cannot pay for one purchase."""
    before, target = np.full(21, 0.05), np.full(21, 0.05 - 0.0009)
    before[-1], target[-1], target[0] = 0.0, 0.0, 0.05 + 19 * 0.0009
    made = ticket([f"N{k}" for k in range(20)] + [CASH], np.ones(20), before, target,
                  capital=None, cost_rate=0.0015, min_trade=0.001, lot=1)  # fmt: skip
    assert made.cash_weight == pytest.approx(0.0, abs=1e-15)
    assert made.turnover == pytest.approx(0.0, abs=1e-15)


portfolios = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda w: sum(w) > 0.1)


@settings(max_examples=200, deadline=None)
@given(portfolios, portfolios, st.floats(100.0, 1e7), st.sampled_from([0.0, 0.0015, 0.05]), st.sampled_from([1, 10]))
def test_every_ticket_is_paid_for_and_goes_no_further_than_its_target(
    held: list[float], wanted: list[float], capital: float, cost: float, lot: int
) -> None:
    before, target = (np.array(each) / sum(each) for each in (held, wanted))
    made = ticket(ASSETS, PRICES, before, target, capital=capital, cost_rate=cost, min_trade=0.01, lot=lot)
    assert made.cash is not None
    assert made.cost is not None
    assert made.cash >= -1e-9 * capital
    spent = sum(order.notional or 0.0 for order in made.orders)
    assert made.cash == pytest.approx(before[-1] * capital - spent - made.cost, abs=1e-6 * capital)
    for order in made.orders:
        asked = (target - before)[ASSETS.index(order.asset)] * capital
        assert order.shares is not None
        assert order.shares % lot == 0
        assert abs(order.notional or 0.0) <= abs(asked) * (1 + 1e-9)
        assert np.sign(order.shares) == np.sign(asked)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_shares_are_worth_their_closes(tmp_path: Path) -> None:
    found = read_holdings(write(tmp_path / "h.csv", "ticker,shares", "BB,10", "AA,50", "cash,1000"), ASSETS, PRICES)
    assert found.value == 2000.0
    np.testing.assert_allclose(found.weights, [0.25, 0.25, 0.0, 0.5])


def test_weights_have_no_value(tmp_path: Path) -> None:
    found = read_holdings(write(tmp_path / "h.csv", "Ticker,Weight", "AA,0.4", "CASH,0.6"), ASSETS, PRICES)
    assert found.value is None
    np.testing.assert_allclose(found.weights, [0.4, 0.0, 0.0, 0.6])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["name,shares", "AA,1"], ":1:1: the header is name,shares; write ticker,shares or ticker,weight"),
        (["ticker,shares", "ZZ,1"], ":2:ticker: 'ZZ' is no name of the run; delete the row"),
        (["ticker,shares", "AA,1", "AA,2"], ":3:ticker: AA stands twice; keep one row"),
        (["ticker,shares", "AA,1,2"], ":2:1: 3 cells; write a ticker and its shares"),
        (["ticker,shares", "AA,-1"], ":2:shares: '-1' is no number from 0 to 1e+15"),
        (["ticker,shares", "AA,nan"], ":2:shares: 'nan' is not a number; correct it"),
        (["ticker,shares", "AA,1_000"], ":2:shares: '1_000' is not a number"),
        (["ticker,shares", "AA,"], ":2:shares: '' is no number from 0 to 1e+15"),
        (["ticker,shares", "AA,0"], "nothing is held; give shares, or a row CASH"),
        (["ticker,weight", "AA,0.5"], "the weights sum to 0.5; make it 1, with a row CASH for the rest"),
        (["ticker,shares", "CC,5"], "no price for CC on the newest day; set env.end"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    prices = np.array([10.0, 50.0, np.nan])
    with pytest.raises(DataError) as refused:
        read_holdings(write(tmp_path / "h.csv", *lines), ASSETS, prices)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
