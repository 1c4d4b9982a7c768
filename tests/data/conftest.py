"""Markets that the tests of this room share; each is built once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market, load_prices, market_of
from finflow.data.market import Market
from finflow.data.prices import Prices
from finflow.schema.sections import Env


@pytest.fixture(scope="session")
def sp500_env() -> Env:
    return load("pretrain").env


@pytest.fixture(scope="session")
def sp500_prices(sp500_env: Env) -> Prices:
    return load_prices(sp500_env)


@pytest.fixture(scope="session")
def sp500(sp500_env: Env) -> Market:
    return build_market(sp500_env)


@pytest.fixture(scope="session")
def small_env() -> Env:
    """A synthetic market with a planted signal, small enough to be built dozens of times."""
    return load("pretrain", ["env=synthetic", "env.synthetic.days=1400", "env.synthetic.assets=5"]).env


@pytest.fixture(scope="session")
def listing_prices(small_env: Env) -> Prices:
    """Three ordinary names, FLAT back-filled until row 500, GONE delisted after row 1100, LATE listed at row 300."""
    made = load_prices(small_env)
    close = made.close.copy()
    close[:500, 1] = close[500, 1]
    close[1101:, 2] = np.nan
    close[:300, 3] = np.nan
    return Prices(made.dates, ("ONE", "FLAT", "GONE", "LATE", "TWO"), close, signals=made.signals)


@pytest.fixture(scope="session")
def listing(listing_prices: Prices, small_env: Env) -> Market:
    return market_of(listing_prices, small_env)


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "prices.csv"
        path.write_bytes(text.encode())
        return path

    return write
