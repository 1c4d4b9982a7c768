"""The market made to order: what was planted can be measured, and nothing else can."""

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data.build import load_synthetic, market_of
from finflow.data.prices import Prices
from finflow.schema.sections import Env


def made(**changes: float) -> Prices:
    env: Env = load("pretrain", ["env=synthetic"]).env
    assert env.synthetic is not None
    return load_synthetic(env.model_copy(update={"synthetic": env.synthetic.model_copy(update=changes)}))


def idiosyncratic(close: np.ndarray) -> np.ndarray:
    """[T - 1, d] log returns less their regression on the common factor."""
    returns = np.diff(np.log(close), axis=0)
    factor = returns.mean(axis=1)
    factor -= factor.mean()
    beta = returns.T @ factor / (factor @ factor)
    return returns - returns.mean(axis=0) - np.outer(factor, beta)


@pytest.mark.parametrize(("ic", "persistence"), [(0.05, 0.97), (0.2, 0.9), (0.1, 0.0)])
def test_planted_signal_has_its_ic_and_persistence(ic: float, persistence: float) -> None:
    prices = made(ic=ic, persistence=persistence, days=6000, assets=40)
    signal = prices.signals["planted"]
    own = idiosyncratic(prices.close)
    own /= own.std(axis=1, keepdims=True)
    assert np.mean(own * signal[:-1]) == pytest.approx(ic, abs=0.01)
    assert signal.std() == pytest.approx(1, abs=0.05)
    assert np.mean(signal[1:] * signal[:-1]) == pytest.approx(persistence, abs=0.04)


def test_signal_tells_nothing_of_the_day_it_is_known_on() -> None:
    prices = made(ic=0.3, persistence=0.0, days=6000, assets=40)
    own = idiosyncratic(prices.close)
    own /= own.std(axis=1, keepdims=True)
    assert np.mean(own * prices.signals["planted"][1:]) == pytest.approx(0, abs=0.01)


def test_no_signal_without_ic() -> None:
    assert made(ic=0.0).signals == {}


def test_the_same_spec_gives_the_same_bits_and_another_seed_others() -> None:
    one, two, other = (made(seed=seed) for seed in (1, 1, 2))
    assert one.close.tobytes() == two.close.tobytes()
    assert one.signals["planted"].tobytes() == two.signals["planted"].tobytes()
    assert one.close.tobytes() != other.close.tobytes()


def test_the_market_as_it_comes_is_the_one_it_was_when_it_was_the_only_one() -> None:
    """Figures of before there were other signals; the last digits are the machine's."""
    prices = made()
    assert prices.close[-1, 0] == pytest.approx(2098.8408737918917, rel=1e-10)
    assert made(ic=0.0).close[-1, 0] == pytest.approx(2077.707358864149, rel=1e-10)
    other = made(ic=0.2, persistence=0.9, seed=7, assets=4, days=1300)
    assert other.close[-1, 0] == pytest.approx(90.69939194568249, rel=1e-10)
    assert other.signals["planted"][-1, 0] == pytest.approx(0.4329765683990191, rel=1e-10)


def test_business_days_and_two_regimes() -> None:
    prices = made()
    assert np.is_busday(prices.dates).all()
    assert (np.diff(prices.dates).astype(int) > 0).all()
    assert np.isfinite(prices.close).all()
    returns = np.diff(np.log(prices.close), axis=0).mean(axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(returns, 21).std(axis=1)
    assert np.quantile(windows, 0.95) > 2 * np.quantile(windows, 0.4), "turbulent months differ from calm ones"
    correlation = np.corrcoef(np.diff(np.log(prices.close), axis=0).T)
    assert 0.2 < (correlation.sum() - len(correlation)) / (len(correlation) * (len(correlation) - 1)) < 0.8


def test_missing_common_factor_would_show() -> None:
    prices = made(assets=40)
    own = idiosyncratic(prices.close)
    correlation = np.corrcoef(own.T)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).mean() < 0.06


def test_every_regime_is_there_to_train_on() -> None:
    env = load("pretrain", ["env=synthetic"]).env
    market = market_of(made(), env)
    rates = np.bincount(market.regime[777:], minlength=4) / len(market.regime[777:])
    assert rates.min() > 0.1
    assert rates.max() < 0.6
