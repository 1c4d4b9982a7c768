"""Signals that a regression cannot find: what was planted is there, and no feature says so in a straight line."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from finflow.config.compose import load
from finflow.data.build import expected, load_prices, market_of
from finflow.data.features import CRISIS, VOLATILE
from finflow.data.market import Market
from finflow.data.prices import Prices
from finflow.data.snapshot import settings_of
from finflow.errors import ConfigError
from finflow.schema.sections import Env

DAYS, NAMES, WARM_UP = 6000, 40, 1000
KINDS = ("linear", "nonlinear", "regime")


def env_of(kind: str, *changes: str) -> Env:
    size = [f"env.synthetic.days={DAYS}", f"env.synthetic.assets={NAMES}"]
    return load("pretrain", ["env=synthetic", f"env.synthetic.signal={kind}", *size, *changes]).env


@cache
def drawn(kind: str, ic: float = 0.1) -> tuple[Prices, Market]:
    env = env_of(kind, f"env.synthetic.ic={ic}")
    prices = load_prices(env)
    return prices, market_of(prices, env)


def own_returns(prices: Prices) -> NDArray[np.float64]:
    """[T - 1, d] log returns less their regression on the common factor, of unit variance each day."""
    returns = np.diff(np.log(prices.close), axis=0)
    factor = returns.mean(axis=1)
    factor -= factor.mean()
    own = returns - returns.mean(axis=0) - np.outer(factor, returns.T @ factor / (factor @ factor))
    return own / own.std(axis=1, keepdims=True)


def by_day(scores: NDArray[np.float64], own: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over days of the covariance among names, and its standard error; days are independent draws of noise."""
    products = (scores * own).mean(axis=1)
    return float(products.mean()), float(products.std(ddof=1) / np.sqrt(len(products)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ic", [0.05, 0.1])
def test_the_expected_return_has_the_asked_coefficient(kind: str, ic: float) -> None:
    prices, market = drawn(kind, ic)
    scores = expected(kind, prices.signals["planted"], market.regime)[:-1]
    found, error = by_day(scores, own_returns(prices))
    assert error < 0.004
    assert abs(found - ic) < 3 * error + 0.03 * ic  # a factor that is estimated takes a fortieth of what is planted
    assert np.mean(scores**2) == pytest.approx(1, abs=0.1)
    assert np.mean(scores) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("kind", ["nonlinear", "regime"])
def test_no_feature_but_the_signal_tells_of_it_and_of_the_even_one_not_even_that(kind: str) -> None:
    prices, market = drawn(kind)
    own, features = own_returns(prices)[WARM_UP:], market.features[WARM_UP:-1].astype(np.float64)
    features = (features - features.mean(axis=(0, 1))) / features.std(axis=(0, 1))
    for at, name in enumerate(market.feature_names):
        found, error = by_day(features[:, :, at], own)
        if kind == "nonlinear" or name != "signal:planted":
            assert abs(found) < 3.5 * error, name


def test_past_returns_do_tell_of_the_linear_signal_so_the_check_above_would_see_it() -> None:
    prices, market = drawn("linear")
    at = market.feature_names.index("momentum_21")
    found, error = by_day(market.features[WARM_UP:-1, :, at].astype(np.float64), own_returns(prices)[WARM_UP:])
    assert found > 6 * error


def test_the_regime_signal_holds_on_turbulent_days_and_is_turned_round_on_others() -> None:
    prices, market = drawn("regime")
    own, signal = own_returns(prices), prices.signals["planted"][:-1]
    turbulent = np.isin(market.regime[:-1], (VOLATILE, CRISIS))
    assert 0.15 < turbulent.mean() < 0.6
    for days, sign in ((turbulent, 1.0), (~turbulent, -1.0)):
        found, error = by_day(signal[days], own[days])
        assert abs(found - sign * 0.1) < 3 * error + 0.003


def test_the_labels_it_is_drawn_by_are_those_of_the_market_that_is_built() -> None:
    """To the day: with the labels a day late the coefficient of the days after a switch would have the wrong sign."""
    prices, market = drawn("regime")
    own = own_returns(prices)
    switched = np.flatnonzero(np.diff(np.isin(market.regime[:-1], (VOLATILE, CRISIS)).astype(int))) + 1
    assert len(switched) > 30
    scores = expected("regime", prices.signals["planted"], market.regime)
    found, error = by_day(scores[switched], own[switched])
    assert found > 0.1 - 3 * error
    assert found > 2 * error


def test_what_the_regime_market_draws_up_to_a_day_does_not_depend_on_how_long_it_goes_on() -> None:
    """Labels look at nothing that is later: rules that change labels change the market after them alone."""
    env = env_of("regime")
    looser = env.model_copy(update={"regimes": env.regimes.model_copy(update={"enter_crisis": 0.3})})
    one, two = load_prices(env), load_prices(looser)
    labels = [market_of(prices, each).regime for prices, each in ((one, env), (two, looser))]
    turbulent = [np.isin(each, (VOLATILE, CRISIS)) for each in labels]
    first = int(np.flatnonzero(turbulent[0] != turbulent[1])[0])
    np.testing.assert_array_equal(one.close[: first + 1], two.close[: first + 1])
    assert not np.array_equal(one.close[first + 1], two.close[first + 1])


def test_own_returns_have_the_same_variance_whatever_the_signal_says() -> None:
    prices, _ = drawn("nonlinear")
    own, size = own_returns(prices), np.abs(prices.signals["planted"][:-1])
    low, high = (float(np.var(own[days])) for days in (size < 0.5, size > 1.5))
    assert high / low == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("kind", ["nonlinear", "regime"])
def test_a_coefficient_that_leaves_no_room_for_noise_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"env\.synthetic\.ic=0\.3: leaves no room .* below 0\.2"):
        load_prices(env_of(kind, "env.synthetic.ic=0.3"))
    assert len(load_prices(env_of(kind, "env.synthetic.ic=0.3", "env.synthetic.persistence=0.5")).dates) == DAYS


def test_a_snapshot_of_the_regime_market_knows_by_which_rules_it_was_drawn() -> None:
    assert settings_of(env_of("regime"))["regimes"]["enter_crisis"] == 0.15
    assert settings_of(env_of("linear"))["regimes"] is None
