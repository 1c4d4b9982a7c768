"""The baseline portfolios, each a function of data known at the close of t."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.covariance import rolling_covariance, rolling_volatility
from finflow.allocators.momentum import momentum_top
from finflow.allocators.optimisers import inverse_volatility, maximum_diversification, minimum_variance
from finflow.allocators.risk_parity import equal_risk_contribution, hierarchical_risk_parity
from finflow.allocators.signals import equal_weights
from finflow.data.market import TRADABLE, Market

EQUAL, HOLD, INVERSE, MOMENTUM = "1/N", "buy and hold", "inverse volatility", "momentum 12-1 top 5"

_OF_COVARIANCE: dict[str, Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.float64]]] = {
    "minimum variance": minimum_variance,
    "maximum diversification": maximum_diversification,
    "equal risk contribution": equal_risk_contribution,
    "HRP": hierarchical_risk_parity,
}

BASELINES = (EQUAL, HOLD, INVERSE, *_OF_COVARIANCE, MOMENTUM)


def baseline_targets(market: Market, rows: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Target weights of every baseline at the decision rows.

    1/N and buy and hold take the names tradable at t; the others those of them with a whole year behind them
    (`usable_names`), on that year's Ledoit-Wolf covariance, inverse volatility on its sample standard deviations.
    Momentum holds the five best equally weighted. Where no name qualifies the target is all cash.

    Parameters
    ----------
    market : Market
    rows : increasing decision rows, say month ends.

    Returns
    -------
    {name of `BASELINES`: [T, n]}, cash last. Rows outside `rows` are NaN, and NaN means *hold*: no decision is taken.
    Buy and hold is 1/N on the first of `rows` and NaN on all later ones: it is bought once and drifts.
    """
    rows = np.asarray(rows, dtype=np.intp)
    covariance, mask = rolling_covariance(market, rows)
    equal = equal_weights(market.status[rows, :-1] == TRADABLE)[:, :-1]
    risky = {name: allocate(covariance, mask) for name, allocate in _OF_COVARIANCE.items()}
    risky |= {
        EQUAL: equal,
        HOLD: equal[:1],
        INVERSE: inverse_volatility(rolling_volatility(market, rows), mask),
        MOMENTUM: momentum_top(market, rows),
    }
    return {name: _spread(risky[name], rows, market) for name in BASELINES}


def _spread(weights: NDArray[np.float64], rows: NDArray[np.intp], market: Market) -> NDArray[np.float64]:
    """Risky weights [B, d] of the first B rows on the calendar [T, n], the rest of each 1 in cash."""
    targets = np.full((len(market.dates), market.n), np.nan)
    filled = rows[: len(weights)]
    targets[filled, :-1] = weights
    targets[filled, -1] = np.maximum(1 - weights.sum(axis=1), 0.0)
    return targets
