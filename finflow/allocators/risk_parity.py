"""Portfolios that share risk out: equal risk contribution, and hierarchical risk parity."""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from finflow.allocators.optimisers import normalise, standardise

NEWTON_STEPS = 500

DECREMENT = 1e-6
"""Newton decrement before the last step; after it the error is of the order of its square."""


def equal_risk_contribution(covariance: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights whose names all contribute the same to volatility (Maillard, Roncalli & Teiletche 2010).

    The ray of `min 1/2 y'Cy - sum ln y_i` (Spinu 2013), a self-concordant function: Newton's method with the step
    1 / (1 + decrement) converges from anywhere, and quadratically once the decrement is small.

    Parameters
    ----------
    covariance : [B, d, d].
    mask : [B, d].

    Returns
    -------
    [B, d] weights, zero outside the mask, summing to 1 (0 without names).
    """
    sigma, correlation = standardise(covariance, mask)
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
            return normalise(np.where(mask, y / sigma, 0.0))
    raise AssertionError("a damped Newton method converges on a self-concordant function")


def hierarchical_risk_parity(covariance: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights by recursive bisection of a cluster tree (Lopez de Prado 2016).

    skfolio's definition: angular distance sqrt((1 - correlation) / 2), Ward linkage with optimal leaf order, halves
    of inverse-variance portfolios weighted by the other half's variance. Each row builds its tree: for monthly use.

    Parameters
    ----------
    covariance : [B, d, d].
    mask : [B, d].

    Returns
    -------
    [B, d] weights, zero outside the mask, summing to 1 (0 without names).
    """
    weights = np.zeros(mask.shape)
    _, correlation = standardise(covariance, mask)
    for row, held in enumerate(mask):
        names = np.flatnonzero(held)
        block = np.ix_(names, names)
        weights[row, names] = _bisect(covariance[row][block], _leaf_order(correlation[row][block]))
    return weights


def _leaf_order(correlation: NDArray[np.float64]) -> NDArray[np.intp]:
    """Names [m] in the order of the leaves of their cluster tree."""
    if len(correlation) < 2:
        return np.arange(len(correlation))
    distance = np.sqrt(np.clip((1 - correlation) / 2, 0.0, 1.0))
    tree = linkage(squareform(distance, checks=False), method="ward", optimal_ordering=True)
    return np.asarray(leaves_list(tree), dtype=np.intp)


def _bisect(covariance: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
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


def _cluster_variance(covariance: NDArray[np.float64], names: NDArray[np.intp]) -> float:
    """Variance of the inverse-variance portfolio of `names`."""
    block = covariance[np.ix_(names, names)]
    inverse = 1 / np.diagonal(block)
    inverse = inverse / inverse.sum()
    return float(inverse @ block @ inverse)
