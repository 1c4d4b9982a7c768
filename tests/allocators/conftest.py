from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from skfolio.datasets import load_sp500_dataset

from finflow.data.market import ABSENT, CASH, TRADABLE, Market

MakeMarket = Callable[..., Market]


def market_of(close: NDArray[np.float64], dates: NDArray[np.datetime64] | None = None) -> Market:
    """A market of these prices: tradable wherever there is one, no cash yield, nothing else filled in."""
    days, risky = close.shape
    priced = np.isfinite(close)
    returns = np.zeros((days, risky + 1))
    both = priced[1:] & priced[:-1]
    returns[1:, :risky][both] = close[1:][both] / close[:-1][both] - 1
    status = np.full((days, risky + 1), TRADABLE, dtype=np.int8)
    status[:, :risky][~priced] = ABSENT
    return Market(
        dates=np.datetime64("2000-01-03") + np.arange(days) if dates is None else dates,
        assets=(*(f"A{i}" for i in range(risky)), CASH),
        close=close,
        returns=returns,
        status=status,
        features=np.zeros((days, risky, 1), dtype=np.float32),
        feature_names=("none",),
        market_features=np.zeros((days, 1), dtype=np.float32),
        market_feature_names=("none",),
        regime=np.zeros(days, dtype=np.int8),
        decision=np.ones(days, dtype=np.bool_),
        benchmark=np.zeros(days),
        index=np.zeros(days),
        fingerprint="by hand",
        warnings=(),
    )


def random_walk(days: int = 700, risky: int = 6, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    common = 0.008 * rng.standard_normal((days, 1))
    own = rng.uniform(0.005, 0.03, risky) * rng.standard_normal((days, risky))
    return 100 * np.exp(np.cumsum(common + own + 0.0003, axis=0))


@pytest.fixture
def make_market() -> MakeMarket:
    return market_of


@pytest.fixture
def walk() -> Market:
    return market_of(random_walk())


@pytest.fixture
def gappy() -> Market:
    """Six names: one lists late, one is delisted, one stands still for a long time, one is halted at the end."""
    close = random_walk()
    close[:300, 1] = np.nan
    close[500:, 2] = np.nan
    close[100:400, 3] = close[100, 3]
    market = market_of(close)
    status = market.status.copy()
    status[110:400, 3] = 1
    status[690:, 4] = 1
    return replace(market, status=status)


@pytest.fixture(scope="session")
def sp500() -> Market:
    prices = load_sp500_dataset()
    return market_of(prices.to_numpy(dtype=np.float64), prices.index.to_numpy().astype("datetime64[D]"))
