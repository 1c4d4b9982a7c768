"""Lag, crises, the best baseline of the validation rows, reality checks: each against a hand computation."""

from unittest.mock import Mock

import numpy as np
import pytest

from finflow.data.market import Fold, Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Bootstrap, Task, lagged
from finflow.evaluation.metrics import follows_regime, measure, sharpe_ratio, stress_table
from finflow.evaluation.result import Metrics, Track
from finflow.evaluation.robustness import compare, gate_on_validation, lag_flags, reality_row, spa


def track(name: str, net: np.ndarray, first: str = "2020-01-01") -> Track:
    dates = np.busday_offset(np.datetime64(first), np.arange(len(net)), roll="forward")
    still = np.zeros((len(net), 2))
    zero = np.zeros(len(net))
    return Track(name, dates, still, still, zero, zero, net, net, 0)


def test_a_lagged_trade_is_executed_a_day_later() -> None:
    """Enters at .6/.4; the trade decided on day 1 (+.1) is executed on day 2, whatever has drifted meanwhile.

    Day 2 decides from what it holds then, .75: it sells .25 on day 3.
    """
    said = iter([np.array([[w, 1 - w]]) for w in (0.6, 0.7, 0.5, 0.5)])
    act = lagged(lambda _rows, _drifted, _drawdown: next(said))
    held = [np.array([[w, 1 - w]]) for w in (0.0, 0.6, 0.65, 0.9)]
    seen = [float(act(np.array([k]), h, np.zeros(1))[0, 0]) for k, h in enumerate(held)]
    assert seen == pytest.approx([0.6, 0.6, 0.65 + 0.1, 0.9 - 0.25], abs=1e-12)


def test_fixed_weights_a_day_late_are_one_days_drift_away() -> None:
    """An order that is open is not given again: the drift of earlier days has been traded away."""
    act = lagged(lambda _rows, drifted, _drawdown: np.full_like(drifted, 0.5))
    held = act(np.array([0]), np.array([[0.0, 1.0]]), np.zeros(1))
    for drift in (0.02, -0.03, 0.01, 0.0):
        held = act(np.array([1]), held + np.array([[drift, -drift]]), np.zeros(1))
        np.testing.assert_allclose(held, [[0.5 + drift, 0.5 - drift]], rtol=0, atol=1e-15)


def test_a_lagged_hold_trades_nothing() -> None:
    act = lagged(lambda _rows, drifted, _drawdown: drifted)
    for share in (0.2, 0.5, 0.4):
        held = np.array([[share, 1 - share]])
        np.testing.assert_allclose(act(np.array([0]), held, np.zeros(1)), held, rtol=0, atol=1e-15)


def test_a_sale_that_drift_has_overtaken_stops_at_nothing() -> None:
    said = iter([np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]])])
    act = lagged(lambda _rows, _drifted, _drawdown: next(said))
    for share in (0.5, 0.5):
        act(np.array([0]), np.array([[share, 1 - share]]), np.zeros(1))
    np.testing.assert_allclose(act(np.array([2]), np.array([[0.3, 0.7]]), np.zeros(1)), [[0.0, 1.0]], atol=1e-15)


def test_losing_more_than_half_to_lag_is_flagged() -> None:
    def ratio(value: float | None) -> Metrics:
        return Metrics(*[None, None, value, *[None] * 9], final_nav=1.0)  # type: ignore[arg-type]

    assert lag_flags(ratio(1.0), ratio(0.5)) == []
    assert "60 %" in lag_flags(ratio(1.0), ratio(0.4))[0]
    assert lag_flags(ratio(-1.0), ratio(-3.0)) == []
    assert lag_flags(ratio(None), ratio(0.4)) == []


def test_a_crisis_is_measured_on_its_own_days() -> None:
    net = np.zeros(260)
    one = track("one", net)
    inside = np.flatnonzero((one.dates >= np.datetime64("2020-02-19")) & (one.dates <= np.datetime64("2020-04-30")))
    net[inside[0]], net[inside[1]], net[inside[-1]] = 0.10, -0.20, 0.05
    net[inside[0] - 1], net[inside[-1] + 1] = 0.5, -0.5  # outside, must not count
    (crisis,) = stress_table({"one": one})
    assert crisis.name == "pandemic"
    result, deepest = crisis.strategies["one"]
    assert result == pytest.approx(1.10 * 0.80 * 1.05 - 1, abs=1e-12)
    assert deepest == pytest.approx(0.20, abs=1e-12)


def test_a_window_without_a_crisis_has_no_table() -> None:
    assert stress_table({"one": track("one", np.zeros(200), "2015-01-01")}) == ()


def test_comparison_is_paired_and_signed() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.0003, 0.01, 1500)
    better = track("better", base + 0.001 + rng.normal(0, 0.001, 1500))
    result = compare(better, track("1/N", base), Bootstrap(500, 10, 0))
    active = better.net - base
    assert result.active_ratio == pytest.approx(active.mean() / active.std(ddof=1) * np.sqrt(252))
    assert result.low > 0
    assert result.p_value is not None
    assert result.p_value < 0.01
    ours, theirs = (measure(t, np.zeros(1500), np.ones((1500, 1))).sharpe for t in (better.net, base))
    assert result.difference == pytest.approx(float(ours or 0) - float(theirs or 0))


def test_spa_finds_a_better_strategy_and_none_among_noise() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0.0003, 0.01, 1000)
    noise = {f"n{k}": track(f"n{k}", base + rng.normal(0, 0.002, 1000)) for k in range(5)}
    everyone = {"1/N monthly": track("1/N monthly", base), **noise}
    draws = Bootstrap(500, 10, 0)
    policy = track("policy", base + rng.normal(0, 0.002, 1000))
    lucky = spa({"policy": policy, **everyone}, "1/N monthly", draws)
    policy = track("policy", base + 0.0008 + rng.normal(0, 0.002, 1000))
    able = spa({"policy": policy, **everyone}, "1/N monthly", draws)
    assert lucky is not None
    assert able is not None
    assert lucky > 0.05
    assert able < 0.01


def test_a_part_is_worth_what_the_policy_loses_without_it() -> None:
    rng = np.random.default_rng(0)
    net = rng.normal(0.0006, 0.01, 700)
    whole, worse = track("policy", net), track("without a", net - 0.0008)
    draws = Bootstrap(300, 10, 0)
    row = reality_row(worse, whole, track("1/N", net - 0.0004), draws)
    assert row.worth is not None
    ours, theirs = (float(sharpe_ratio(t.net) or 0) for t in (whole, worse))
    assert row.sharpe == pytest.approx(theirs)
    assert row.worth.difference == pytest.approx(ours - theirs)
    assert row.worth.low > 0
    assert row.distance == 0.0
    assert reality_row(whole, whole, worse, draws).worth is None
    same = reality_row(track("without b", net.copy()), whole, worse, draws)
    assert same.worth is not None
    assert (same.worth.difference, same.worth.low, same.worth.high) == (0.0, 0.0, 0.0)


def test_the_gate_is_asked_along_the_policys_own_validation_track(make_market) -> None:
    """A gate that knows the label of its own day, and one that is told another day's."""
    rng = np.random.default_rng(2)
    regime = np.repeat(rng.integers(3, size=70), 10).astype(np.int8)
    market = make_market(rng.normal(3e-4, 0.01, (700, 3)), regime=regime)
    fold = Fold("auto", Window(260, 300), Window(320, 620), Window(640, 700))
    own = track("policy", rng.normal(3e-4, 0.01, 300))
    asked: list[np.ndarray] = []

    def explain(rows: np.ndarray, drifted: np.ndarray, drawdown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(rows)
        assert drifted is own.drifted
        np.testing.assert_array_equal(drawdown, own.drawdown_before)
        return np.eye(3)[regime[rows]], np.ones(len(rows))

    found = gate_on_validation(Task(market, fold, Accounting(0.0)), Mock(explain=explain), own)
    assert found is not None
    assert found.found
    assert found == follows_regime(np.eye(3)[regime[319:619]], regime[319:619])
    assert asked[0].tolist() == list(range(319, 619))
