"""Nothing up to t depends on what comes after t, to the bit: prices scaled, shuffled, blanked, cut."""

from collections.abc import Callable

import numpy as np
import pytest

from finflow.data.build import market_of
from finflow.data.market import Market
from finflow.data.prices import Prices
from finflow.schema.sections import Env

CAUSAL = ("returns", "status", "features", "market_features", "regime", "benchmark")
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
CHANGES: dict[str, Change] = {
    "scaled": lambda later, rng: later * np.exp(rng.standard_normal(later.shape)),
    "shuffled": lambda later, rng: later[rng.permutation(len(later))],
    "blank": lambda later, rng: np.full_like(later, np.nan),
    "some blank": lambda later, rng: np.where(rng.random(later.shape) < 0.3, np.nan, later),
    "flat": lambda later, rng: np.repeat(later[:1], len(later), axis=0),
}


def assert_same_past(market: Market, changed: Market, t: int) -> None:
    for name in CAUSAL:
        before, after = getattr(market, name)[: t + 1], getattr(changed, name)[: t + 1]
        assert before.tobytes() == after.tobytes(), (name, t)
    assert market.decision[:t].tobytes() == changed.decision[:t].tobytes()


@pytest.fixture(scope="module")
def monthly_env(small_env: Env) -> Env:
    return small_env.model_copy(update={"rebalance": "monthly", "delist_return": -0.3})


@pytest.mark.parametrize("change", CHANGES)
def test_changed_future_leaves_the_past_alone(change: str, listing_prices: Prices, monthly_env: Env) -> None:
    market = market_of(listing_prices, monthly_env)
    rng = np.random.default_rng(7)
    for t in (*rng.integers(1, 1399, 7), 500, 1100, 1101):
        close = listing_prices.close.copy()
        close[t + 1 :] = CHANGES[change](close[t + 1 :], rng) if t + 1 < len(close) else close[t + 1 :]
        signals = {"planted": listing_prices.signals["planted"].copy()}
        signals["planted"][t + 1 :] = rng.standard_normal(close[t + 1 :].shape)
        changed = Prices(listing_prices.dates, listing_prices.tickers, close, signals=signals)
        assert_same_past(market, market_of(changed, monthly_env), int(t))


@pytest.mark.parametrize("t", [900, 1000, 1103, 1250, 1398])
def test_cut_data_give_the_same_past(t: int, listing_prices: Prices, monthly_env: Env) -> None:
    """From 900 on, when the cut data, too, hold the 756 days of volatility that labels ask for."""
    cut = Prices(
        listing_prices.dates[: t + 1],
        listing_prices.tickers,
        listing_prices.close[: t + 1],
        signals={name: values[: t + 1] for name, values in listing_prices.signals.items()},
    )
    market, changed = market_of(listing_prices, monthly_env), market_of(cut, monthly_env)
    assert_same_past(market, changed, t)
    assert market.decision[t] == changed.decision[t], "no holidays here: the last row is decided alike"


def test_real_prices(sp500: Market, sp500_prices: Prices, sp500_env: Env) -> None:
    rng = np.random.default_rng(11)
    for t in rng.integers(1000, 8300, 3):
        close = sp500_prices.close.copy()
        close[t + 1 :] *= np.exp(rng.standard_normal(close[t + 1 :].shape))
        changed = Prices(sp500_prices.dates, sp500_prices.tickers, close)
        assert_same_past(sp500, market_of(changed, sp500_env), int(t))
        cut = Prices(sp500_prices.dates[: t + 1], sp500_prices.tickers, sp500_prices.close[: t + 1])
        assert_same_past(sp500, market_of(cut, sp500_env), int(t))


def test_the_present_does_matter(listing_prices: Prices, listing: Market, small_env: Env) -> None:
    """The comparison itself is not blind: a change at t shows at t, in every causal array but the labels."""
    t = 1000
    close = listing_prices.close.copy()
    close[t, 0] *= 2
    changed = market_of(
        Prices(listing_prices.dates, listing_prices.tickers, close, signals=listing_prices.signals), small_env
    )
    for name in ("returns", "features", "market_features", "benchmark"):
        assert getattr(listing, name)[: t + 1].tobytes() != getattr(changed, name)[: t + 1].tobytes(), name
