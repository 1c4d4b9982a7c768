"""The published baseline table, reproduced through allocators, simulator and metrics to its rounding.

20 stocks of the S&P 500 bundled with skfolio; month-end closes and the close before the window; 10 bp, no slippage;
252-day lookback, Ledoit-Wolf covariance. Sharpe / daily CVaR95 % / max drawdown % / two-way turnover a year.
"""

from decimal import Decimal

import numpy as np
import pytest
from skfolio.datasets import load_sp500_dataset

from finflow.data.market import CASH, TRADABLE, Market, Window
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import MONTHLY, baseline_tracks
from finflow.evaluation.metrics import measure
from finflow.evaluation.result import Metrics, Track

TEN_BP = Accounting(cost_rate=0.001)
WINDOWS = {"2000-02": (2000, 2002), "2008-09": (2008, 2009), "2013-17": (2013, 2017), "2020": (2020, 2020)}
WINDOWS["2018-22"] = (2018, 2022)
TABLE = {
    MONTHLY: ".18/2.9/30/1.0 .10/5.3/48/.8 1.38/1.8/14/.5 .68/5.4/32/.7 .90/3.2/32/.7",
    "buy and hold": ".03/2.8/27/0 -.05/5.0/47/0 1.43/1.9/12/0 .61/5.3/31/0 .78/3.5/30/0",
    "inverse volatility": ".14/2.6/28/.9 .02/4.6/44/.8 1.35/1.6/13/.5 .59/5.1/31/.7 .85/3.0/31/.6",
    "minimum variance": ".20/2.5/23/2.0 -.19/3.5/37/1.7 1.48/1.5/14/2.1 .38/4.3/25/1.9 .68/2.6/25/2.4",
    "maximum diversification": ".49/2.7/24/2.2 .06/5.1/47/2.7 1.32/1.8/20/2.0 1.10/4.7/26/2.7 1.04/3.0/26/2.6",
    "equal risk contribution": ".23/2.6/26/1.0 .02/4.7/45/.9 1.39/1.6/14/.6 .68/5.1/30/.7 .90/3.0/30/.7",
    "momentum 12-1 top 5": "-.08/3.9/40/6.2 .01/4.5/47/7.5 1.10/2.4/16/6.0 .80/6.5/35/3.6 .86/4.1/35/5.3",
}


@pytest.fixture(scope="module")
def market() -> Market:
    prices = load_sp500_dataset()
    close = prices.to_numpy(dtype=np.float64)
    days, d = close.shape
    returns = np.zeros((days, d + 1))
    returns[1:, :-1] = close[1:] / close[:-1] - 1
    return Market(
        dates=prices.index.to_numpy().astype("datetime64[D]"),
        assets=(*prices.columns, CASH),
        close=close,
        returns=returns,
        status=np.full((days, d + 1), TRADABLE, dtype=np.int8),
        features=np.zeros((days, d, 0), dtype=np.float32),
        feature_names=(),
        market_features=np.zeros((days, 0), dtype=np.float32),
        market_feature_names=(),
        regime=np.zeros(days, dtype=np.int8),
        decision=np.ones(days, dtype=np.bool_),
        benchmark=returns[:, :-1].mean(1),
        index=returns[:, :-1].mean(1),
        fingerprint="sp500",
        warnings=(),
    )


def window(market: Market, first: int, last: int) -> Window:
    year = market.dates.astype("datetime64[Y]").astype(int) + 1970
    rows = np.flatnonzero((year >= first) & (year <= last))
    return Window(int(rows[0]), int(rows[-1]) + 1)


def figures(track: Track) -> tuple[float, ...]:
    m: Metrics = measure(track.net, track.turnover, track.weights)
    assert m.sharpe is not None
    assert m.cvar95 is not None
    assert m.max_drawdown is not None
    assert m.turnover is not None
    return m.sharpe, 100 * m.cvar95, 100 * m.max_drawdown, m.turnover


def cells(name: str, column: int) -> list[tuple[float, float]]:
    """Value and half a unit of its last digit; buy and hold never rebalances."""
    texts = TABLE[name].split()[column].split("/")
    decimals = (2, 1, 0, 1)
    return [(float(Decimal(t)), 0.5 * 10.0**-k) for t, k in zip(texts, decimals, strict=True)]


@pytest.fixture(scope="module")
def tracks(market: Market) -> dict[str, dict[str, Track]]:
    return {w: baseline_tracks(market, window(market, *years), TEN_BP) for w, years in WINDOWS.items()}


@pytest.mark.parametrize("name", TABLE)
def test_table_is_reproduced(tracks: dict[str, dict[str, Track]], name: str) -> None:
    for column, period in enumerate(WINDOWS):
        found = figures(tracks[period][name])
        for value, (published, half) in zip(found, cells(name, column), strict=True):
            assert abs(value - published) <= half + 1e-9, (period, found, TABLE[name].split()[column])
