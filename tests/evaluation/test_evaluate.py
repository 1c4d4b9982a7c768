"""A whole evaluation of a made-up policy, and the files it leaves."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from finflow.data.features import FeatureScaling
from finflow.data.market import ABSENT, TRADABLE, Fold, Market, Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Bootstrap, Candidate, Task
from finflow.evaluation.evaluate import evaluate_policy
from finflow.evaluation.files import CLOSED, TRADE, figures, trades, write_evaluation
from finflow.evaluation.result import Evaluation
from finflow.seeding import numpy_stream

COSTS = Accounting(0.0015)
FOLD = Fold("auto", Window(260, 500), Window(520, 580), Window(600, 700))
DELISTED = 650  # A0 has no price from this row on


class Tilted:
    """Part of the way to a fixed portfolio each day."""

    def __init__(self, weights: list[float], rate: float = 0.5) -> None:
        self.rate = rate
        self.weights = np.array(weights)
        self.seen: list[int] = []

    def act(self, rows: np.ndarray, drifted: np.ndarray, drawdown: np.ndarray) -> np.ndarray:
        assert rows.shape == drawdown.shape == (1,)
        self.seen.append(int(rows[0]))
        return (1 - self.rate) * drifted + self.rate * self.weights

    def explain(self, rows: np.ndarray, drifted: np.ndarray, drawdown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gate = np.stack([drawdown, 1 - drawdown], axis=1)
        return gate, rows.astype(float)


def market_with_a_delisting(make_market) -> Market:
    returns = numpy_stream(0, "evaluate test").normal(3e-4, 0.01, (700, 3))
    returns[DELISTED:, 0] = 0.0
    status = np.full((700, 4), TRADABLE, dtype=np.int8)
    status[DELISTED:, 0] = ABSENT
    market = make_market(returns, status=status, regime=np.repeat(np.arange(7, dtype=np.int8) % 3, 100))
    market.close[DELISTED:, 0] = np.nan
    return market


def evaluated(market: Market, policy: Tilted, own_benchmark: bool = False) -> Evaluation:
    scaling = FeatureScaling.fit(market, FOLD)
    candidate = Candidate(policy, scaling, ("volatility", "growth"), diagnostics={"gate_entropy": 0.5})
    return evaluate_policy(
        Task(market, FOLD, COSTS),
        candidate,
        Bootstrap(200, 21, 0),
        window_opened=3,
        warnings=("given",),
        own_benchmark=own_benchmark,
    )


@pytest.fixture(scope="module")
def case(make_market) -> tuple[Market, Evaluation, Tilted]:
    market, policy = market_with_a_delisting(make_market), Tilted([0.6, 0.1, 0.1, 0.2])
    return market, evaluated(market, policy), policy


def test_evaluation_holds_what_a_report_needs(case) -> None:
    _, e, policy = case
    windows = (FOLD.train, FOLD.validation, FOLD.test, FOLD.test)  # the test window again one close later
    assert sorted(policy.seen) == sorted(row for window in windows for row in window.decisions)
    assert next(iter(e.metrics)) == "policy"
    assert set(e.metrics) == {"policy", *e.baselines}
    assert {"1/N daily", "1/N monthly", "buy and hold", "linear tilt"} <= set(e.baselines)
    assert e.verdict.opponent in ("1/N daily", "1/N monthly")
    assert e.gate.shape == (100, 2)
    np.testing.assert_array_equal(e.rate, np.arange(599, 699))
    np.testing.assert_array_equal(e.gate[:, 0], e.policy.drawdown_before)
    assert sum(e.regime_days.values()) == len(e.regime) == 100
    assert set(e.by_regime) == set(e.regime_days)
    assert (e.window_opened, e.diagnostics) == (3, {"gate_entropy": 0.5})
    assert e.warnings[0] == "given"
    assert "positions closed because their price had ended: 1" in e.warnings
    assert e.scaled_verdict.scale != 1.0


def test_one_pair_of_tracks_has_one_interval_and_one_p_value(case) -> None:
    _, e, _ = case
    (same,) = [c for c in e.scrutiny.comparisons if c.opponent == e.verdict.opponent]
    for field in ("difference", "low", "high", "p_value"):
        assert getattr(same, field) == getattr(e.verdict, field)


def test_a_benchmark_of_ones_own_and_cash_are_compared_with(make_market, tmp_path: Path) -> None:
    market = market_with_a_delisting(make_market)
    rng = numpy_stream(2, "evaluate test")
    market.returns[:, -1] = 0.0001
    market.benchmark[:] = rng.normal(2e-4, 0.008, 700)
    policy = Tilted([0.6, 0.1, 0.1, 0.2])
    e = evaluated(market, policy, own_benchmark=True)
    own = market.benchmark[600:700]
    np.testing.assert_array_equal(e.baselines["benchmark"].net, own)
    assert e.benchmark is not None
    ours, theirs = (x.mean() / x.std(ddof=1) * 252**0.5 for x in (e.policy.net, own))
    assert e.benchmark.difference == pytest.approx(ours - theirs, abs=1e-9)
    assert e.benchmark.line().startswith(f"Verdict: {e.benchmark.outcome} benchmark (difference")
    compared = {c.opponent: c for c in e.scrutiny.comparisons}
    assert compared["benchmark"].p_value == e.benchmark.p_value
    over = compared[f"{e.verdict.opponent}, both over cash"]
    rival = e.baselines[e.verdict.opponent].net
    one, two = (x.mean() / x.std(ddof=1) * 252**0.5 for x in (e.policy.net - 1e-4, rival - 1e-4))
    assert over.difference == pytest.approx(one - two, abs=1e-9)
    plain = evaluated(market, policy)
    assert plain.benchmark is None
    assert "benchmark" not in plain.baselines
    assert plain.scrutiny.spa_p == e.scrutiny.spa_p  # nobody can hold it: it is no strategy of the test
    write_evaluation(tmp_path, e, Task(market, FOLD, COSTS))
    rows = list(csv.DictReader((tmp_path / "returns.csv").open()))
    np.testing.assert_array_equal([float(row["benchmark"]) for row in rows], own)
    assert {row["cash"] for row in rows} == {"0.0001"}
    assert json.loads((tmp_path / "metrics.json").read_text())["benchmark_verdict"]["opponent"] == "benchmark"


def test_test_returns_do_not_touch_the_scale(make_market) -> None:
    market = market_with_a_delisting(make_market)
    before = evaluated(market, Tilted([0.6, 0.1, 0.1, 0.2])).scaled_verdict
    market.returns[FOLD.test.start : FOLD.test.stop] *= 3.0
    after = evaluated(market, Tilted([0.6, 0.1, 0.1, 0.2])).scaled_verdict
    assert before.scale == after.scale
    assert before.difference != after.difference


def test_copies_of_the_benchmark_are_called_so(make_market) -> None:
    third = [1 / 3, 1 / 3, 1 / 3, 0.0]
    market = make_market(numpy_stream(1, "evaluate test").normal(3e-4, 0.01, (700, 3)))
    warnings = evaluated(market, Tilted(third, rate=1.0)).warnings
    assert any(w.startswith("collapsed to 1/N daily: tracking error") for w in warnings)


def test_an_incredible_sharpe_ratio_is_questioned(make_market) -> None:
    market = make_market(numpy_stream(1, "evaluate test").normal(3e-3, 0.01, (700, 3)))
    warnings = evaluated(market, Tilted([0.6, 0.1, 0.1, 0.2])).warnings
    assert any("is above 2: look for a leak first" in w for w in warnings)


def test_files_let_anyone_recompute(case, tmp_path: Path) -> None:
    market, e, _ = case
    write_evaluation(tmp_path, e, Task(market, FOLD, COSTS))
    returns = list(csv.DictReader((tmp_path / "returns.csv").open()))
    assert list(returns[0]) == ["date", "policy", *e.baselines, "cash"]
    assert returns[0]["date"] == str(market.dates[600])
    for name in ("policy", *e.baselines):
        final = math.prod(1 + float(row[name]) for row in returns)
        assert final == pytest.approx(e.metrics[name].final_nav, rel=1e-12)
    weights = np.array([list(r.values())[1:] for r in csv.DictReader((tmp_path / "weights.csv").open())], dtype=float)
    np.testing.assert_array_equal(weights, e.policy.weights)
    turnover = np.abs(weights - e.policy.drifted)[:, :-1].sum(1)
    net = (1 - 0.0015 * turnover) * (1 + (weights * market.returns[600:700]).sum(1)) - 1
    np.testing.assert_allclose(net, [float(r["policy"]) for r in returns], atol=1e-15)
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved["metrics"]["policy"]["sharpe"] == e.metrics["policy"].sharpe
    assert saved["verdict"]["line"] == e.verdict.line()
    assert "window_opened" not in saved


def test_the_ledger_names_every_trade_and_the_closing(case) -> None:
    market, e, _ = case
    rows = trades(e.policy, market, FOLD.test)
    cost = dict.fromkeys((str(d) for d in market.dates[599:699]), 0.0)
    for date, _, before, after, trade, paid, _ in rows:
        assert trade == pytest.approx(after - before)
        cost[date] += paid
    np.testing.assert_allclose(list(cost.values()), e.policy.cost, atol=1e-16)
    closed = [row for row in rows if row[-1] == CLOSED]
    assert len(closed) == 1
    date, ticker, before, after, _, paid, _ = closed[0]
    assert (date, ticker, after) == (str(market.dates[DELISTED]), "A0", 0.0)
    assert before > 0.1
    assert paid == pytest.approx(0.0015 * before)
    assert not [r for r in rows if r[1] == "A0" and r[0] > date]
    assert all(row[-1] in (TRADE, CLOSED) and row[1] != "CASH" for row in rows)


def test_drift_is_no_trade(make_market) -> None:
    market = make_market(numpy_stream(1, "evaluate test").normal(3e-4, 0.01, (700, 3)))
    hold = evaluated(market, Tilted([0.6, 0.1, 0.1, 0.2])).baselines["buy and hold"]
    assert [row[0] for row in trades(hold, market, FOLD.test)] == [str(market.dates[599])] * 3


def test_undefined_figures_are_null(make_market) -> None:
    market = make_market(numpy_stream(1, "evaluate test").normal(3e-4, 0.01, (700, 3)))
    e = evaluated(market, Tilted([0.0, 0.0, 0.0, 1.0]))
    plain = json.loads(json.dumps(figures(e), allow_nan=False))
    assert plain["verdict"]["outcome"] == "INDISTINGUISHABLE FROM"
    assert plain["verdict"]["difference"] is None
    assert plain["metrics"]["policy"]["sharpe"] is None
