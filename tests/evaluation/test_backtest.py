"""The backtest is the simulator; costs, verdict and files read its tracks."""

import math

import numpy as np
import pytest

from finflow.data.market import ABSENT, CASH, FROZEN, NO_LABEL, TRADABLE, Window
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import Simulator
from finflow.errors import DataError
from finflow.evaluation.backtest import (
    MONTHLY,
    Bootstrap,
    Plan,
    backtest,
    baseline_tracks,
    equal_weight_name,
    equal_weight_track,
)
from finflow.evaluation.costs import BPS, break_even_bps, cost_table, recost
from finflow.evaluation.metrics import by_regime, decision_regimes, measure, sharpe_ratio
from finflow.evaluation.result import Track
from finflow.evaluation.verdict import scaled_track, strongest, verdict_of, volatility_scale
from finflow.seeding import numpy_stream

COSTLY = Accounting(cost_rate=0.0015, max_weight=0.6, min_cash=0.02, no_trade_band=0.01, max_turnover=0.5)


def random_returns(days: int, d: int, mean: float = 4e-4) -> np.ndarray:
    return numpy_stream(0, f"returns {days} {d}").normal(mean, 0.01, (days, d))


def tilt(rows: np.ndarray, drifted: np.ndarray, drawdown: np.ndarray) -> np.ndarray:
    """Depends on everything a strategy is shown."""
    aim = np.full_like(drifted, 1 / drifted.shape[1])
    aim[:, 0] += 0.3 * (rows % 5 == 0) + drawdown
    aim /= aim.sum(1, keepdims=True)
    return 0.7 * drifted + 0.3 * aim


def test_backtest_equals_the_simulator_bit_for_bit(make_market) -> None:
    market = make_market(random_returns(120, 4), rebalance="weekly")
    window = Window(20, 110)
    market.decision[window.start - 1] = True
    plan = Plan(np.full((120, 5), 0.2), market.decision)
    track = backtest(market, window, COSTLY, {"plan": plan, "tilt": tilt, "again": tilt})["tilt"]
    simulator = Simulator(market, COSTLY, RewardModel(200.0, 0.02, 5.0, 0.1, 0.0, 0.5))
    rows = np.asarray(window.decisions)
    simulator.reset(rows[None])
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(track.drifted[i], simulator.drifted[0])
        assert track.drawdown_before[i] == pytest.approx(simulator.drawdown[0], abs=1e-15)
        step = simulator.step(tilt(np.array([row]), simulator.drifted, simulator.drawdown))
        np.testing.assert_array_equal(track.weights[i], step.executed[0])
        booked = (track.turnover[i], track.cost[i], track.gross[i], track.net[i])
        assert booked == tuple(float(field[0]) for field in step.booked[:4])
    assert track.drawdown_before.max() > 0.001
    assert track.nav[-1] == pytest.approx(simulator.nav[0], rel=1e-12)
    assert track.dates[0] == market.dates[20]
    assert len(track.net) == len(window)


def test_strategies_side_by_side_do_not_see_each_other(make_market) -> None:
    market = make_market(random_returns(80, 3))
    plans = {f"p{i}": Plan(numpy_stream(i, "plan").dirichlet(np.ones(4), 80), market.decision) for i in range(4)}
    together = backtest(market, Window(10, 80), COSTLY, plans)
    for name, plan in plans.items():
        alone = backtest(market, Window(10, 80), COSTLY, {name: plan})[name]
        np.testing.assert_array_equal(alone.net, together[name].net)
        np.testing.assert_array_equal(alone.weights, together[name].weights)
    assert list(together) == list(plans)


def test_plans_hold_on_nan_and_trade_on_their_own_days(make_market) -> None:
    market = make_market(random_returns(60, 2))
    targets = np.full((60, 3), np.nan)
    targets[9] = targets[30] = [0.5, 0.5, 0.0]
    targets[20] = [1.0, 0.0, 0.0]
    decide = np.ones(60, dtype=bool)
    decide[20] = False
    track = backtest(market, Window(10, 60), Accounting(0.001), {"p": Plan(targets, decide)})["p"]
    assert np.flatnonzero(track.turnover).tolist() == [0, 21]
    assert track.cost[0] == pytest.approx(0.001)  # the first purchase is charged
    drifted = 0.5 * (1 + market.returns[10, :2])
    np.testing.assert_allclose(track.weights[1, :2], drifted / drifted.sum(), rtol=1e-14)


def test_everyone_may_buy_on_the_first_day_whatever_the_calendar(make_market) -> None:
    market = make_market(random_returns(60, 2), rebalance="monthly")
    window = Window(5, 60)
    assert not market.decision[4]
    hold_all = np.full((60, 3), 1 / 3)
    tracks = backtest(market, window, Accounting(0.0), {"p": Plan(hold_all, market.decision), "c": tilt})
    assert all(t.turnover[0] > 0 for t in tracks.values())
    assert np.flatnonzero(tracks["c"].turnover[1:]).tolist() == np.flatnonzero(market.decision[5:59]).tolist()
    assert not market.decision[4]  # the market itself is untouched


def test_a_target_that_is_no_number_is_named(make_market) -> None:
    market = make_market(random_returns(30, 2))
    with pytest.raises(DataError, match=r"'bad', 2015-01-\d+, A1: target weight is not finite"):
        backtest(market, Window(5, 30), COSTLY, {"bad": lambda r, w, d: np.array([[0.5, np.nan, 0.5]])})
    with pytest.raises(DataError, match="choose another fold"):
        backtest(market, Window(0, 30), COSTLY, {"tilt": tilt})


def delisting(make_market):
    """A0 loses 40 % on the day after its last price, row 30, and is absent from then on; A1 is frozen on 12-14."""
    returns = random_returns(50, 3)
    returns[30:, 0] = 0.0
    returns[30, 0] = -0.4
    status = np.full((50, 4), TRADABLE, dtype=np.int8)
    status[30:, 0] = ABSENT
    status[12:15, 1] = FROZEN
    return make_market(returns, status=status)


def test_a_delisted_name_is_closed_with_cost_and_counted(make_market) -> None:
    market = delisting(make_market)
    tracks = baseline_tracks(market, Window(5, 50), Accounting(0.01))
    hold = tracks["buy and hold"]
    assert hold.closures == 1
    assert hold.gross[30 - 5] < -0.1  # the fall is earned
    at = 31 - 5  # the decision at row 30 earns row 31
    assert hold.drifted[at, 0] > 0
    assert hold.weights[at, 0] == 0
    assert hold.turnover[at] == pytest.approx(hold.drifted[at, 0])
    assert hold.cost[at] == pytest.approx(0.01 * hold.drifted[at, 0])
    assert (tracks["1/N daily"].weights[at:, 0] == 0).all()
    frozen = slice(13 - 5, 16 - 5)  # decisions of rows 12, 13, 14
    np.testing.assert_array_equal(tracks["1/N daily"].weights[frozen, 1], tracks["1/N daily"].drifted[frozen, 1])


def test_baselines_carry_their_frequencies(make_market) -> None:
    market = make_market(random_returns(400, 3))
    tracks = baseline_tracks(market, Window(300, 400), Accounting(0.001))
    assert next(iter(tracks)) == equal_weight_name("daily") == "1/N daily"
    assert (tracks["1/N daily"].turnover > 0).all()
    traded = np.flatnonzero(tracks[MONTHLY].turnover)
    months = market.dates.astype("datetime64[M]")
    assert traded[0] == 0
    assert all(months[299 + t] != months[300 + t] for t in traded[1:])
    alone = equal_weight_track(market, Window(300, 400), Accounting(0.001))
    np.testing.assert_array_equal(alone.net, tracks["1/N daily"].net)
    monthly = make_market(random_returns(400, 3), rebalance="monthly")
    tracks = baseline_tracks(monthly, Window(300, 400), Accounting(0.001))
    assert sum(name.startswith("1/N") for name in tracks) == 1


def test_recosting_equals_simulating_again_bit_for_bit(make_market) -> None:
    market = make_market(random_returns(90, 3))
    plan = Plan(numpy_stream(1, "plan").dirichlet(np.ones(4), 90), market.decision)
    window = Window(10, 90)
    track = backtest(market, window, Accounting(0.0015), {"p": plan})["p"]
    for bps in BPS:
        again = backtest(market, window, Accounting(bps / 1e4), {"p": plan})["p"]
        np.testing.assert_array_equal(recost(track, market, window, bps).net, again.net)


def test_cost_table_and_break_even(make_market) -> None:
    returns = random_returns(300, 2)
    returns[:, 0] += 1e-3
    market = make_market(returns)
    window = Window(50, 300)
    flip = np.tile([0.9, 0.1, 0.0], (300, 1))
    flip[::2] = [0.7, 0.3, 0.0]  # better, but turns over 0.4 a day
    calm = np.full((300, 3), [0.5, 0.5, 0.0])
    plans = {"flip": Plan(flip, market.decision), "calm": Plan(calm, market.decision)}
    tracks = backtest(market, window, Accounting(0.0015), plans)
    table = cost_table(tracks["flip"], tracks["calm"], market, window)
    assert [row.bps for row in table] == [0, 5, 10, 25]
    ratios = [row.sharpe for row in table]
    assert ratios == sorted(ratios, reverse=True)
    even = break_even_bps(tracks["flip"], tracks["calm"], market, window)
    assert even is not None
    at = [sharpe_ratio(recost(t, market, window, even).net) for t in tracks.values()]
    assert at[0] == pytest.approx(at[1], abs=1e-6)
    assert break_even_bps(tracks["calm"], tracks["calm"], market, window) is None


def test_days_are_grouped_by_the_label_at_their_decision(make_market) -> None:
    regime = np.full(40, NO_LABEL, dtype=np.int8)
    regime[10:20], regime[20:39], regime[39] = 2, 0, 3
    market = make_market(random_returns(40, 2), regime=regime)
    window = Window(5, 40)
    track = backtest(market, window, Accounting(0.001), {"tilt": tilt})
    labels = decision_regimes(market, window)
    tables, days = by_regime(labels, track)
    assert days == {"stable": 19, "normal": 6, "volatile": 10}  # row 39 decides nothing; no label is normal
    chosen = track["tilt"].net[(11 - 5) : (21 - 5)]  # decided on rows 10 to 19
    assert tables["volatile"]["tilt"].final_nav == pytest.approx(np.prod(1 + chosen), rel=1e-14)
    total = math.prod(table["tilt"].final_nav for table in tables.values())
    assert total == pytest.approx(np.prod(1 + track["tilt"].net), rel=1e-12)
    assert tables["volatile"]["tilt"].turnover == pytest.approx(track["tilt"].turnover[6:16].mean() * 252)


def made(name: str, net: np.ndarray) -> Track:
    dates = np.datetime64("2020-01-01") + np.arange(len(net))
    zero = np.zeros(len(net))
    weights = np.tile([1.0, 0.0], (len(net), 1))
    return Track(name, dates, weights, weights, zero, zero, net, net, 0)


def test_verdict_in_words() -> None:
    noise = numpy_stream(0, "verdict test").normal(0, 0.01, (1000, 3))
    equal, monthly = made("1/N daily", noise[:, 0] + 2e-4), made("1/N monthly", noise[:, 0] + 3e-4)
    opponents = {t.name: t for t in (equal, monthly)}
    assert strongest(opponents) == "1/N monthly"
    better = made("policy", noise[:, 0] + 0.1 * noise[:, 1] + 15e-4)
    worse = made("policy", noise[:, 0] + 0.1 * noise[:, 1] - 15e-4)
    like = made("policy", noise[:, 0] + 0.1 * noise[:, 1] + 3e-4)
    found = {}
    for key, policy in (("better", better), ("worse", worse), ("like", like), ("same", monthly)):
        v = verdict_of(policy, opponents, Bootstrap(500, 21, 0))
        found[key] = v
        assert v.opponent == "1/N monthly"
        assert (v.samples, v.block_days, v.scale, v.leveraged) == (500, 21, 1.0, False)
        assert (v.outcome == "BEATS") == (v.low > 0)
        assert (v.outcome == "WORSE THAN") == (v.high < 0)
    outcomes = [found[k].outcome for k in ("better", "worse", "like", "same")]
    assert outcomes == ["BEATS", "WORSE THAN", "INDISTINGUISHABLE FROM", "INDISTINGUISHABLE FROM"]
    assert found["same"].line() == "Verdict: INDISTINGUISHABLE FROM 1/N (difference 0.00, 95 % [0.00, 0.00])"
    v = found["better"]
    assert v.line() == f"Verdict: BEATS 1/N (difference {v.difference:.2f}, 95 % [{v.low:.2f}, {v.high:.2f}])"
    cash = verdict_of(made("policy", np.zeros(1000)), opponents, Bootstrap(100, 21, 0))
    assert (cash.outcome, cash.p_value) == ("INDISTINGUISHABLE FROM", None)
    assert math.isnan(cash.difference)


def test_scaling_uses_train_volatility_cash_and_marked_leverage(make_market) -> None:
    market = make_market(random_returns(200, 2))
    window = Window(100, 200)
    half = Plan(np.tile([0.25, 0.25, 0.5], (200, 1)), market.decision)
    full = Plan(np.tile([0.5, 0.5, 0.0], (200, 1)), market.decision)
    train = backtest(market, Window(1, 90), Accounting(0.0), {"half": half, "full": full})
    up, down = volatility_scale(train["half"], train["full"]), volatility_scale(train["full"], train["half"])
    assert up == pytest.approx(2.0, rel=1e-6)
    assert down == pytest.approx(0.5, rel=1e-6)
    test = backtest(market, window, Accounting(0.001), {"half": half, "full": full})
    doubled = scaled_track(test["half"], market, window, 0.001, up)
    np.testing.assert_allclose(doubled.net, test["full"].net, atol=1e-7)
    thirds = scaled_track(test["full"], market, window, 0.001, 3.0)  # cash is borrowed, costs are threefold
    np.testing.assert_allclose(thirds.weights[:, -1], -2.0, atol=1e-12)
    np.testing.assert_allclose(thirds.gross, 3 * test["full"].gross, atol=1e-12)
    assert thirds.cost[0] == pytest.approx(0.003)
    verdict = verdict_of(thirds, {"1/N monthly": test["full"]}, Bootstrap(100, 5, 0), scale=3.0)
    assert verdict.leveraged
    assert volatility_scale(made("cash", np.zeros(50)), train["full"]) == 1.0


def test_leverage_is_paid_for_on_days_without_a_trade(make_market) -> None:
    status = np.full((60, 4), TRADABLE, dtype=np.int8)
    status[20:26, 0], status[45:, 2] = FROZEN, ABSENT
    market = make_market(random_returns(60, 3), status=status, rebalance="monthly")
    market.returns[1:, -1] = 0.01
    window = Window(5, 60)
    plan = Plan(np.tile([0.4, 0.35, 0.25, 0.0], (60, 1)), market.decision)
    policy = backtest(market, window, Accounting(0.001), {"policy": plan})["policy"]
    double = scaled_track(policy, market, window, 0.001, 2.0)
    assert (policy.turnover == 0).sum() > 40
    assert (double.weights[:, -1] < -0.4).all()
    np.testing.assert_allclose(double.weights.sum(1), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(double.drifted.sum(1), 1.0, rtol=0, atol=1e-12)
    risky = (double.weights[:, :-1] * market.returns[5:60, :-1]).sum(1)
    np.testing.assert_allclose(double.gross, risky + 0.01 * double.weights[:, -1], rtol=0, atol=1e-12)
    start, quiet = double.weights[0], 1 + market.returns[5]
    np.testing.assert_allclose(double.weights[1], start * quiet / (start @ quiet), rtol=0, atol=1e-12)


def test_ruin_ends_a_track_and_nothing_is_invented(make_market) -> None:
    returns = np.full((20, 1), 0.01)
    returns[10] = -1.0
    market = make_market(returns)
    track = backtest(market, Window(5, 20), Accounting(0.0), {"all in": lambda r, w, d: np.array([[1.0, 0.0]])})
    net = track["all in"].net
    assert net[5] == -1.0
    assert (net[6:] == 0).all()
    assert measure(net, track["all in"].turnover, track["all in"].weights).final_nav == 0.0
    assert market.assets[-1] == CASH
