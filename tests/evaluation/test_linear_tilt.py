"""A regression finds alpha that was planted, nothing where there is none, and never looks ahead."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.null_market import null_prices
from finflow.config.compose import load
from finflow.data.build import build_market, load_prices, market_of
from finflow.data.features import FeatureScaling
from finflow.data.market import ABSENT, FROZEN, TRADABLE, Fold, Market, Window, make_fold
from finflow.envs.ledger import Accounting
from finflow.errors import DataError
from finflow.evaluation.backtest import (
    MONTHLY,
    Bootstrap,
    Task,
    backtest,
    baseline_tracks,
    equal_weight_name,
    equal_weight_track,
)
from finflow.evaluation.linear_tilt import (
    HORIZON,
    PENALTY,
    LinearTilt,
    fit_linear_tilt,
    fit_oracle,
    planted_signal,
    regress,
    tilt,
)
from finflow.evaluation.metrics import active_information_ratio
from finflow.evaluation.result import Track
from finflow.evaluation.verdict import verdict_of
from finflow.schema.sections import Env
from finflow.seeding import numpy_stream
from tests.shapes import gross_active_t

COSTS = Accounting(0.0015)
FOLD = Fold("auto", Window(10, 400), Window(420, 560), Window(580, 700))
PLANTED = ["env=synthetic", "env.synthetic.ic=0.1", "env.synthetic.days=3500", "env.synthetic.assets=10"]


def settings(*changes: str) -> Env:
    return load("pretrain", [*PLANTED, *changes]).env


def fitted(market: Market, fold: Fold, accounting: Accounting = COSTS) -> LinearTilt:
    return fit_linear_tilt(Task(market, fold, accounting), FeatureScaling.fit(market, fold))


def followed(market: Market, window: Window, tilted: LinearTilt, accounting: Accounting = COSTS) -> Track:
    return backtest(market, window, accounting, {"linear": tilted.strategy(market)})["linear"]


@pytest.fixture(scope="module")
def planted() -> tuple[Market, Fold, LinearTilt]:
    env = settings()
    market = build_market(env)
    fold = make_fold(market, env, "auto")
    return market, fold, fitted(market, fold, Accounting.of(env))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_earns_four_fifths_of_the_oracle_on_a_fresh_path(seed: int) -> None:
    """Net active information ratio over ten years that nobody fitted on; the oracle knows the signal."""
    env = settings(f"env.synthetic.seed={seed}")
    market, accounting = build_market(env), Accounting.of(env)
    fold = make_fold(market, env, "auto")
    learnt = fitted(market, fold, accounting)
    oracle = fit_oracle(market, fold.validation, accounting)
    assert env.synthetic is not None
    other = env.synthetic.model_copy(update={"seed": seed + 1000, "days": 2780})
    fresh = build_market(env.model_copy(update={"synthetic": other}))
    window = Window(260, len(fresh.dates))
    equal = equal_weight_track(fresh, window, accounting)
    known = tilt(fresh, planted_signal(fresh), oracle.strength, oracle.rate)
    best = backtest(fresh, window, accounting, {"oracle": known})["oracle"]
    ours = active_information_ratio(followed(fresh, window, learnt, accounting).net, equal.net) or 0.0
    theirs = active_information_ratio(best.net, equal.net) or 0.0
    assert theirs > 2
    assert ours >= 0.8 * theirs
    assert np.argmax(np.abs(learnt.coefficients)) == market.feature_names.index("signal:planted")


def test_the_coefficients_are_the_closed_form_of_ridge(make_market) -> None:
    """beta = (X'X + penalty N I)^-1 X'y of cells less their day's mean, by hand, one name frozen half of the time."""
    rng = np.random.default_rng(4)
    status = np.full((700, 4), TRADABLE, dtype=np.int8)
    status[100:250, 1] = FROZEN
    market = make_market(rng.normal(3e-4, 0.01, (700, 3)), status=status)
    features = rng.normal(0, 1, (700, 3, 2)).astype(np.float32)
    xs: list[np.ndarray] = []
    ys: list[float] = []
    for t in range(9, 400 - HORIZON):  # the last return used is that of row 399
        names = np.flatnonzero(status[t, :3] == TRADABLE)
        x = features[t, names].astype(float)
        y = market.returns[t + 1 : t + 1 + HORIZON][:, names].sum(0)
        xs += list(x - x.mean(0))
        ys += list(y - y.mean())
    x, y = np.array(xs), np.array(ys)
    beta = np.linalg.solve(x.T @ x + PENALTY * len(y) * np.eye(2), x.T @ y)
    beta /= np.sqrt(np.mean((x @ beta) ** 2))
    np.testing.assert_allclose(regress(market, features, FOLD.train), beta, rtol=1e-8)


def test_nothing_is_found_on_a_null_market() -> None:
    """Ten null markets, each fitted on its own past: gross active return within 3 standard errors of 0, pooled too, of
    a tilt that is made to trade; and as chosen, one verdict of BEATS is what chance allows."""
    env = settings("env.synthetic.ic=0", "env.synthetic.days=2000", "env.synthetic.assets=5")
    home = market_of(load_prices(env), env)
    train = make_fold(home, env, "auto").train
    found: list[float] = []
    outcomes: list[str] = []
    for seed in range(10):
        market = market_of(null_prices(home, train, 2000, numpy_stream(seed, "linear tilt/null")), env)
        fold = make_fold(market, env, "auto")
        fold = replace(fold, test=Window(fold.test.start, len(market.dates)))
        chosen, baselines = fitted(market, fold), baseline_tracks(market, fold.test, COSTS)
        eager = replace(chosen, strength=0.5, rate=0.2)
        equal = {name: baselines[name] for name in (equal_weight_name("daily"), MONTHLY)}
        found.append(gross_active_t(followed(market, fold.test, eager), equal[equal_weight_name("daily")]))
        own = followed(market, fold.test, chosen)
        outcomes.append(verdict_of(own, equal, Bootstrap(200, 21, seed)).outcome)
    assert max(abs(t) for t in found) < 3
    assert abs(sum(found)) / len(found) ** 0.5 < 3
    assert outcomes.count("BEATS") <= 1


def with_noise(market: Market, first: int) -> Market:
    """Returns and features from row `first` on are noise."""
    rng = np.random.default_rng(9)
    returns, features = market.returns.copy(), market.features.copy()
    returns[first:, :-1] = rng.normal(0, 0.02, returns[first:, :-1].shape)
    features[first:] = rng.normal(0, 2, features[first:].shape)
    return replace(market, returns=returns, features=features)


def test_rows_after_train_do_not_move_the_coefficients(planted: tuple[Market, Fold, LinearTilt]) -> None:
    market, fold, learnt = planted
    again = fitted(with_noise(market, fold.train.stop), fold)
    np.testing.assert_array_equal(again.coefficients, learnt.coefficients)
    touched = fitted(with_noise(market, fold.train.stop - 1), fold)
    assert not np.array_equal(touched.coefficients, learnt.coefficients), "the last train row does matter"


def test_rows_from_the_test_window_on_move_nothing_that_is_chosen(planted: tuple[Market, Fold, LinearTilt]) -> None:
    market, fold, learnt = planted
    again = fitted(with_noise(market, fold.validation.stop), fold)
    chosen = (learnt.strength, learnt.rate, learnt.information_ratio)
    assert (again.strength, again.rate, again.information_ratio) == chosen
    np.testing.assert_array_equal(again.coefficients, learnt.coefficients)
    touched = fitted(with_noise(market, fold.validation.start), fold)
    assert touched.information_ratio != learnt.information_ratio, "validation rows do matter"


def test_its_signal_knows_the_past_alone(planted: tuple[Market, Fold, LinearTilt]) -> None:
    market, fold, learnt = planted
    row = fold.test.start
    changed = learnt.signal(with_noise(market, row + 1))
    np.testing.assert_array_equal(changed[: row + 1], learnt.signal(market)[: row + 1])
    assert not np.array_equal(changed[row + 1], learnt.signal(market)[row + 1])


def test_where_no_tilt_pays_it_holds_what_equal_weight_holds(planted: tuple[Market, Fold, LinearTilt]) -> None:
    """At 10 % a trade, or with features that say nothing: to the bit 1/N at the policy's frequency.

    A slow tilt trades less than 1/N, so that it beats it there whatever it predicts: that must not count.
    """
    market, fold, _ = planted
    dear = Accounting(0.1)
    signal = np.zeros((len(market.dates), market.n - 1))
    assert fit_oracle(market, fold.validation, dear, signal=signal).information_ratio > 1
    flat = replace(market, features=np.zeros_like(market.features))
    for given in (market, flat):
        learnt = fitted(given, fold, dear)
        assert (learnt.strength, learnt.rate, learnt.information_ratio) == (0.0, 1.0, 0.0)
        assert learnt.coefficients.any() == (given is market)
        equal = equal_weight_track(given, fold.test, dear)
        np.testing.assert_array_equal(followed(given, fold.test, learnt, dear).weights, equal.weights)


def names_with_gaps(make_market: Callable[..., Market], names: int) -> Market:
    """The first name lists late, the second freezes, the last is delisted within the test window."""
    rng = np.random.default_rng(names)
    status = np.full((700, names + 1), TRADABLE, dtype=np.int8)
    status[:200, 0] = ABSENT
    if names > 2:
        status[300:450, 1] = FROZEN
        status[650:, -2] = ABSENT
    market = make_market(rng.normal(3e-4, 0.01, (700, names)), status=status)
    market.returns[650:, -2] = 0.0
    return replace(market, features=rng.normal(0, 1, (700, names, 1)).astype(np.float32))


@pytest.mark.parametrize("names", [1, 2, 3, 60])
def test_any_number_of_names_and_untradable_cells(make_market, names: int) -> None:
    market = names_with_gaps(make_market, names)
    learnt = fitted(market, FOLD)
    assert np.isfinite(learnt.coefficients).all()
    signal = learnt.signal(market)
    cells = market.status[:, :-1] == TRADABLE
    assert (signal[~cells] == 0).all()
    np.testing.assert_allclose(signal.sum(1), 0.0, atol=1e-9)
    forced = followed(market, FOLD.test, replace(learnt, strength=4.0, rate=0.4))
    np.testing.assert_allclose(forced.weights.sum(1), 1.0, atol=1e-9)
    assert (forced.weights >= 0).all()
    if names > 2:
        assert (forced.weights[650 - FOLD.test.start + 1 :, -2] == 0).all()


@pytest.mark.parametrize("days", [1, 2, 21])
def test_a_validation_window_of_a_few_days_is_enough_to_run(make_market, days: int) -> None:
    market = names_with_gaps(make_market, 4)
    short = replace(FOLD, validation=Window(420, 420 + days))
    learnt = fitted(market, short)
    assert np.isfinite(learnt.information_ratio)
    assert days > 1 or (learnt.strength, learnt.rate) == (0.0, 1.0), "a single day has no ratio: 1/N"
    assert np.isfinite(followed(market, FOLD.test, learnt).net).all()


def test_a_train_window_no_longer_than_the_horizon_says_nothing(make_market) -> None:
    market = names_with_gaps(make_market, 3)
    assert not regress(market, market.features, Window(300, 300 + HORIZON - 1)).any()


def test_a_rare_feature_does_not_overflow(make_market) -> None:
    """A prediction of a million deviations is still a portfolio."""
    market = names_with_gaps(make_market, 3)
    wild = np.zeros((700, 3))
    wild[600, 0] = 1e6
    act = tilt(market, wild, 4.0, 1.0)
    np.testing.assert_array_equal(act(np.array([600]), np.eye(4)[[3]], np.zeros(1))[0], [1.0, 0.0, 0.0, 0.0])


def test_other_features_are_refused(planted: tuple[Market, Fold, LinearTilt]) -> None:
    market, _, learnt = planted
    with pytest.raises(DataError, match="the scaling was fitted on"):
        learnt.strategy(replace(market, features=market.features[..., :-1]))
