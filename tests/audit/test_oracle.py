"""Alpha that was planted is found by one who knows where, net of costs, and the verdict says so."""

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market
from finflow.data.market import ABSENT, Fold, Market, Window, make_fold
from finflow.envs.ledger import Accounting
from finflow.errors import DataError
from finflow.evaluation.backtest import MONTHLY, Bootstrap, baseline_tracks, equal_weight_name, equal_weight_track
from finflow.evaluation.linear_tilt import Oracle, fit_oracle, planted_signal, tilt
from finflow.evaluation.metrics import active_information_ratio
from finflow.evaluation.verdict import verdict_of
from finflow.schema.sections import Env


@pytest.fixture(scope="module")
def env() -> Env:
    return load("pretrain", ["env=synthetic", "env.synthetic.ic=0.1", "env.synthetic.days=3500"]).env


@pytest.fixture(scope="module")
def case(env: Env) -> tuple[Market, Fold, Accounting, Oracle]:
    market = build_market(env)
    fold, accounting = make_fold(market, env, "auto"), Accounting.of(env)
    return market, fold, accounting, fit_oracle(market, fold.validation, accounting)


def active_ratio(oracle: Oracle, market: Market, window: Window, accounting: Accounting) -> float:
    """Net information ratio of the active return against 1/N."""
    equal = equal_weight_track(market, window, accounting)
    return active_information_ratio(oracle.track(market, window, accounting).net, equal.net, equal.year) or 0.0


def test_the_oracle_beats_equal_weight_on_the_test_window(case: tuple[Market, Fold, Accounting, Oracle]) -> None:
    market, fold, accounting, oracle = case
    track = oracle.track(market, fold.test, accounting)
    baselines = baseline_tracks(market, fold.test, accounting)
    opponents = {name: baselines[name] for name in (equal_weight_name("daily"), MONTHLY)}
    verdict = verdict_of(track, opponents, Bootstrap(500, 21, 0))
    assert verdict.outcome == "BEATS"
    assert track.cost.sum() > 0.01, "net of what it trades"
    ratio = active_ratio(oracle, market, fold.test, accounting)
    assert 1.5 < ratio < 8


def test_it_is_the_best_of_its_grid_on_validation_alone(case: tuple[Market, Fold, Accounting, Oracle]) -> None:
    market, fold, accounting, oracle = case
    own = active_ratio(oracle, market, fold.validation, accounting)
    assert own == pytest.approx(oracle.information_ratio, rel=1e-12)
    one = fit_oracle(market, fold.validation, accounting, strengths=(0.25,), rates=(1.0,))
    assert (one.strength, one.rate) == (0.25, 1.0)
    assert one.information_ratio < oracle.information_ratio
    blind = market.returns.copy()
    blind[fold.validation.stop :] = 0.0
    unseen = Market(**{**vars(market), "returns": blind})
    again = fit_oracle(unseen, fold.validation, accounting)
    assert (again.strength, again.rate, again.information_ratio) == (
        oracle.strength, oracle.rate, oracle.information_ratio
    )  # fmt: skip


def test_the_same_tilt_by_a_wrong_signal_beats_nothing(case: tuple[Market, Fold, Accounting, Oracle]) -> None:
    market, fold, accounting, oracle = case
    wrong = tilt(market, np.roll(planted_signal(market), 1, axis=1), oracle.strength, oracle.rate)
    other = Oracle(oracle.strength, oracle.rate, 0.0, wrong)
    assert active_ratio(other, market, fold.test, accounting) < 0.5


def test_a_tilt_by_hand(case: tuple[Market, Fold, Accounting, Oracle]) -> None:
    market, n = case[0], case[0].n
    signal = np.zeros((len(market.dates), n - 1))
    signal[400, 0] = np.log(3.0)
    rows = np.array([400])
    held = np.zeros((1, n))
    held[0, 1] = 1.0
    cash = np.eye(n)[[n - 1]]
    aim = np.array([3.0, *[1.0] * (n - 2), 0.0]) / (n + 1)
    act = tilt(market, signal, 1.0, 0.25)
    np.testing.assert_allclose(act(rows, held, np.zeros(1))[0], 0.75 * held[0] + 0.25 * aim, rtol=0, atol=1e-15)
    np.testing.assert_allclose(act(rows, cash, np.zeros(1))[0], aim, rtol=0, atol=1e-15)
    status = market.status.copy()
    status[400, :-1] = ABSENT
    nothing = tilt(Market(**{**vars(market), "status": status}), signal, 1.0, 1.0)
    np.testing.assert_allclose(nothing(rows, held, np.zeros(1)), cash, rtol=0, atol=0)


def test_a_market_without_a_planted_signal_is_refused() -> None:
    env = load("pretrain", ["env=synthetic", "env.synthetic.ic=0", "env.synthetic.days=1300"]).env
    with pytest.raises(DataError, match="no planted signal"):
        planted_signal(build_market(env))
