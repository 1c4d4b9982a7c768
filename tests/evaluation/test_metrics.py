"""Hand-computed metrics."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from finflow.evaluation.metrics import active_information_ratio, cvar, measure, sharpe_ratio, validation_score
from finflow.evaluation.result import Track

NET = np.array([-0.10, 0.05, 0.10, -0.02, 0.04])
TURNOVER = np.array([1.0, 0.1, 0.0, 0.2, 0.1])
WEIGHTS = np.array([[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])


def test_hand_example() -> None:
    m = measure(NET, TURNOVER, WEIGHTS, year=20)
    nav = 0.9 * 1.05 * 1.10 * 0.98 * 1.04
    mean = 0.07 / 5
    variance = sum((x - mean) ** 2 for x in NET.tolist()) / 4
    assert m.final_nav == pytest.approx(nav, abs=1e-15)
    assert m.annual_return == pytest.approx(nav ** (20 / 5) - 1)
    assert m.volatility == pytest.approx(math.sqrt(20 * variance))
    assert m.sharpe == pytest.approx(mean / math.sqrt(variance) * math.sqrt(20))
    assert m.sortino == pytest.approx(mean / math.sqrt((0.01 + 0.0004) / 5) * math.sqrt(20))
    assert m.max_drawdown == pytest.approx(0.10)  # from the start at 1, by the first day
    assert m.calmar == pytest.approx((nav ** (20 / 5) - 1) / 0.10)
    assert m.cvar95 == pytest.approx(0.10)
    assert m.hit_rate == pytest.approx(0.6)
    assert m.turnover == pytest.approx(0.1 * 20)  # the first purchase is no rebalancing
    assert m.effective_assets == pytest.approx((2 + 1 / 0.375 + 1 + 1 + 2) / 5)
    low, high = np.quantile(NET, [0.05, 0.95])
    assert m.tail_ratio == pytest.approx(high / -low)


def test_drawdown_runs_from_its_peak_to_the_day_that_regains_it() -> None:
    def days(*net: float) -> tuple[float | None, float | None]:
        m = measure(np.array(net), np.zeros(len(net)), np.ones((len(net), 1)))
        return m.max_drawdown, m.drawdown_days

    assert days(-0.5, 0.5, 0.4, 0.1) == (pytest.approx(0.5), 3.0)  # .5, .75, 1.05: back on the third day
    assert days(0.1, -0.1, -0.1, 0.05) == (pytest.approx(0.19), 3.0)  # still open at the end
    assert days(0.1, 0.0, 0.2) == (0.0, 0.0)  # standing at the peak is no drawdown
    assert days(-0.1, 0.2, 0.1) == (pytest.approx(0.1), 2.0)
    assert days(-0.01) == (pytest.approx(0.01), 1.0)


def test_cvar_takes_the_worst_five_percent_rounded_up() -> None:
    assert cvar(np.arange(21) / -100.0, 0.05) == pytest.approx((0.20 + 0.19) / 2)  # 1.05 days are 2
    assert cvar(np.arange(20) / -100.0, 0.05) == pytest.approx(0.19)
    assert cvar(np.arange(1260) / -1e4, 0.05) == pytest.approx(np.arange(1197, 1260).mean() / 1e4)  # exactly 63


def test_undefined_is_none_and_nothing_is_clipped() -> None:
    flat = asdict(measure(np.zeros(10), np.zeros(10), np.ones((10, 1)), year=40))
    assert [k for k, v in flat.items() if v is None] == ["sharpe", "sortino", "calmar", "tail_ratio"]
    assert flat["volatility"] == 0.0
    empty = asdict(measure(np.zeros(0), np.zeros(0), np.ones((0, 1))))
    assert {k for k, v in empty.items() if v is not None} == {"final_nav"}
    ruin = measure(np.array([0.1, -1.0, 0.0]), np.zeros(3), np.ones((3, 1)))
    assert (ruin.annual_return, ruin.max_drawdown, ruin.final_nav) == (None, 1.0, 0.0)
    wild = np.array([3.0, 5.0, 4.0, 6.0])  # a Sharpe ratio far above 5 stays what it is
    assert measure(wild, np.zeros(4), np.ones((4, 1))).sharpe == pytest.approx(4.5 / np.std(wild, ddof=1) * 252**0.5)


@pytest.mark.parametrize(("year", "quarter"), [(252, 63), (365, 92), (52, 13), (12, 3)])
def test_less_than_a_quarter_is_not_annualised(year: int, quarter: int) -> None:
    def found(rows: int) -> tuple[float | None, float | None]:
        m = measure(np.r_[-0.01, np.full(rows - 1, 0.02)], np.zeros(rows), np.ones((rows, 1)), year=year)
        assert m.volatility is not None
        assert m.final_nav > 1
        return m.annual_return, m.calmar

    assert found(quarter - 1) == (None, None)
    assert None not in found(quarter)


def test_validation_score_is_active_against_the_benchmark() -> None:
    def track(net: np.ndarray) -> Track:
        dates = np.arange("2020-01-01", "2020-01-06", dtype="datetime64[D]")
        return Track("x", dates, WEIGHTS, WEIGHTS, TURNOVER, 0 * net, net, net, 0)

    benchmark = np.array([-0.08, 0.05, 0.09, -0.04, 0.05])
    active = NET - benchmark
    score = validation_score(track(NET), track(benchmark))
    assert score["active_information_ratio"] == pytest.approx(active.mean() / active.std(ddof=1) * math.sqrt(252))
    assert score["sharpe"] == sharpe_ratio(NET)
    assert set(score) == {"sharpe", "active_information_ratio", "cvar95", "turnover", "effective_assets"}
    assert score["effective_assets"] == pytest.approx(np.mean(1 / np.sum(WEIGHTS**2, axis=1)))
    assert active_information_ratio(NET, NET) is None
