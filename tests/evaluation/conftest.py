from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from finflow.data.market import CASH, NO_LABEL, TRADABLE, Market, decision_days

MakeMarket = Callable[..., Market]


@pytest.fixture(scope="session")
def make_market() -> MakeMarket:
    def make(
        risky: NDArray[np.float64],
        *,
        status: NDArray[np.int8] | None = None,
        regime: NDArray[np.int8] | None = None,
        rebalance: str = "daily",
        start: str = "2015-01-01",
    ) -> Market:
        """A market of [T, d] risky returns on business days from `start`, row 0 zero, cash earning nothing."""
        days, d = risky.shape
        dates = np.busday_offset(start, np.arange(days), roll="forward").astype("datetime64[D]")
        returns = np.concatenate([risky, np.zeros((days, 1))], axis=1)
        returns[0] = 0.0
        return Market(
            dates=dates,
            assets=(*(f"A{i}" for i in range(d)), CASH),
            close=100 * np.cumprod(1 + returns[:, :-1], axis=0),
            returns=returns,
            status=np.full((days, d + 1), TRADABLE, dtype=np.int8) if status is None else status,
            features=np.zeros((days, d, 1), dtype=np.float32),
            feature_names=("x",),
            market_features=np.zeros((days, 1), dtype=np.float32),
            market_feature_names=("m",),
            regime=np.full(days, NO_LABEL, dtype=np.int8) if regime is None else regime,
            decision=decision_days(dates, rebalance),
            benchmark=returns[:, :-1].mean(1),
            index=returns[:, :-1].mean(1),
            fingerprint="0123456789abcdef",
            warnings=(),
            rebalance=rebalance,
        )

    return make
