"""The baseline portfolios, each a function of data known at the close of t; and those that share risk out.

These make weights of a covariance [B, d, d] and a mask [B, d] as the optimisers of `priors` do. Classical online
portfolio selection comes from the library universal-portfolios (extra `olps`).
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from finflow.allocators import priors
from finflow.allocators.priors import Floats, Mask, Rows
from finflow.data.market import TRADABLE, Market
from finflow.errors import ConfigError
from finflow.schema import OnlineSelection

NEWTON_STEPS = 500

DECREMENT = 1e-6
"""Newton decrement before the last step; after it the error is of the order of its square."""


def equal_risk_contribution(covariance: Floats, mask: Mask) -> Floats:
    """Weights [B, d] whose names all contribute the same to volatility (Maillard, Roncalli & Teiletche 2010).

    The ray of `min 1/2 y'Cy - sum ln y_i` (Spinu 2013), a self-concordant function: Newton's method with the step
    1 / (1 + decrement) converges from anywhere, and quadratically once the decrement is small.
    """
    sigma, correlation = priors.standardise(covariance, mask)
    d = mask.shape[1]
    # Start on the ray of inverse volatility, at the point where the optimality condition holds on average.
    start = np.sqrt(d / correlation.sum(axis=(1, 2)))
    y = np.broadcast_to(start[:, None], mask.shape).copy()
    open_rows = np.arange(len(y))
    for _ in range(NEWTON_STEPS):
        c, point = correlation[open_rows], y[open_rows]
        gradient = (c @ point[:, :, None])[:, :, 0] - 1 / point
        hessian = c.copy()
        hessian[:, range(d), range(d)] += 1 / point**2
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        decrement = np.sqrt(np.maximum((step * gradient).sum(axis=1), 0.0))
        length = np.where(decrement > 0.25, 1 / (1 + decrement), 1.0)
        y[open_rows] = point - length[:, None] * step
        open_rows = open_rows[decrement > DECREMENT]
        if not len(open_rows):
            return priors.normalise(np.where(mask, y / sigma, 0.0))
    raise AssertionError("a damped Newton method converges on a self-concordant function")


def hierarchical_risk_parity(covariance: Floats, mask: Mask) -> Floats:
    """Weights [B, d] by recursive bisection of a cluster tree (Lopez de Prado 2016).

    skfolio's definition: angular distance sqrt((1 - correlation) / 2), Ward linkage with optimal leaf order, halves
    of inverse-variance portfolios weighted by the other half's variance. Each row builds its tree: for monthly use.
    """
    weights = np.zeros(mask.shape)
    _, correlation = priors.standardise(covariance, mask)
    for row, held in enumerate(mask):
        names = np.flatnonzero(held)
        block = np.ix_(names, names)
        weights[row, names] = _bisect(covariance[row][block], _leaf_order(correlation[row][block]))
    return weights


def _leaf_order(correlation: Floats) -> Rows:
    """Names [m] in the order of the leaves of their cluster tree."""
    if len(correlation) < 2:
        return np.arange(len(correlation))
    distance = np.sqrt(np.clip((1 - correlation) / 2, 0.0, 1.0))
    tree = linkage(squareform(distance, checks=False), method="ward", optimal_ordering=True)
    return np.asarray(leaves_list(tree), dtype=np.intp)


def _bisect(covariance: Floats, order: Rows) -> Floats:
    """Weights [m] by halving the ordered names until each stands alone."""
    weights = np.ones(len(order))
    groups = [order]
    while groups:
        group = groups.pop()
        if len(group) < 2:
            continue
        left, right = group[: len(group) // 2], group[len(group) // 2 :]
        risk_left, risk_right = _cluster_variance(covariance, left), _cluster_variance(covariance, right)
        weights[left] *= risk_right / (risk_left + risk_right)
        weights[right] *= risk_left / (risk_left + risk_right)
        groups += [left, right]
    return weights


def _cluster_variance(covariance: Floats, names: Rows) -> float:
    """Variance of the inverse-variance portfolio of `names`."""
    block = covariance[np.ix_(names, names)]
    inverse = 1 / np.diagonal(block)
    inverse = inverse / inverse.sum()
    return float(inverse @ block @ inverse)


EQUAL, HOLD, INVERSE, MOMENTUM = "1/N", "buy and hold", "inverse volatility", "momentum 12-1 top 5"

_OF_COVARIANCE: dict[str, Callable[[Floats, Mask], Floats]] = {
    "minimum variance": priors.minimum_variance,
    "maximum diversification": priors.maximum_diversification,
    "equal risk contribution": equal_risk_contribution,
    "HRP": hierarchical_risk_parity,
}

BASELINES = (EQUAL, HOLD, INVERSE, *_OF_COVARIANCE, MOMENTUM)


def baseline_targets(market: Market, rows: Rows) -> dict[str, Floats]:
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
    covariance, mask = priors.rolling_covariance(market, rows)
    equal = priors.equal_weights(market.status[rows, :-1] == TRADABLE)[:, :-1]
    risky = {name: allocate(covariance, mask) for name, allocate in _OF_COVARIANCE.items()}
    risky |= {
        EQUAL: equal,
        HOLD: equal[:1],
        INVERSE: priors.inverse_volatility(priors.rolling_volatility(market, rows), mask),
        MOMENTUM: priors.momentum_top(market, rows),
    }
    return {name: _spread(risky[name], rows, market) for name in BASELINES}


def _spread(weights: Floats, rows: Rows, market: Market) -> Floats:
    """Risky weights [B, d] of the first B rows on the calendar [T, n], the rest of each 1 in cash."""
    targets = np.full((len(market.dates), market.n), np.nan)
    filled = rows[: len(weights)]
    targets[filled, :-1] = weights
    targets[filled, -1] = np.maximum(1 - weights.sum(axis=1), 0.0)
    return targets


_CLASS: dict[OnlineSelection, str] = {
    "eg": "EG", "ons": "ONS", "anticor": "Anticor", "pamr": "PAMR", "cwmr": "CWMR", "olmar": "OLMAR", "rmr": "RMR",
}  # fmt: skip
"""The library's class of each algorithm. UCRP is 1/N daily; what decides in hindsight (BCRP) is no baseline."""


def require_online_selection(names: Sequence[OnlineSelection]) -> None:
    """Refuse baselines, by a ConfigError, whose library universal-portfolios is missing."""
    if names:
        _library(names[0])


def online_selection_targets(market: Market, name: OnlineSelection) -> Floats:
    """Target weights [T, n] of one algorithm with the library's parameters, cash last.

    Row t follows from prices up to the close of t. The algorithm starts with the market's first day. A day without a
    price is a day without a return to it; what it gives to names that cannot be traded at t goes to the others in
    proportion, and to cash where there is none. Raises as `require_online_selection`.
    """
    levels = np.cumprod(1.0 + np.nan_to_num(market.returns[:, :-1]), axis=0)
    # The library's row t is what is held over day t; one day more gives what the last close decides.
    prices = pd.DataFrame(np.concatenate([levels, levels[-1:]]), columns=list(market.assets[:-1]))
    result = getattr(_library(name), _CLASS[name])().run(prices, log_progress=False)
    weights = np.asarray(result.B, dtype=np.float64)[1:] * (market.status[:, :-1] == TRADABLE)
    total = weights.sum(axis=1, keepdims=True)
    risky = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.concatenate([risky, 1.0 - risky.sum(axis=1, keepdims=True)], axis=1)


def _library(name: str) -> Any:
    try:
        return importlib.import_module("universal.algos")
    except ImportError as error:
        raise ConfigError(
            f"baselines=[{name}]: the library universal-portfolios is missing ({error}); install it with "
            "python -m pip install universal-portfolios six"
        ) from None
