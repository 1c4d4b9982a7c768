"""Long-only portfolios of a covariance, one per row of a batch: [B, d, d] and a mask [B, d] to weights [B, d].

Weights are non-negative, zero outside the mask and sum to 1 (a row without names is all zero: the rest is cash).
The optimisers work in correlation space, y = sigma * w, where matrices are well conditioned whatever the volatilities.
"""

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.simplex import nonnegative_qp
from finflow.errors import DataError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def inverse_volatility(volatility: Floats, mask: Mask) -> Floats:
    """Weights proportional to 1 / `volatility` [B, d], which is positive on the mask."""
    return normalise(np.divide(1.0, volatility, out=np.zeros_like(volatility), where=mask))


def minimum_variance(covariance: Floats, mask: Mask) -> Floats:
    """Weights of least variance (Markowitz 1952): the ray of `min 1/2 w'Sw - 1'w`, w >= 0."""
    sigma, correlation = standardise(covariance, mask)
    return normalise(nonnegative_qp(correlation, 1 / sigma, mask) / sigma)


def maximum_diversification(covariance: Floats, mask: Mask) -> Floats:
    """Weights of the largest ratio of mean volatility to volatility, sigma'w / sqrt(w'Sw) (Choueifaty 2008).

    The ratio does not change along a ray, so it is a minimum variance problem in correlation space.
    """
    sigma, correlation = standardise(covariance, mask)
    return normalise(nonnegative_qp(correlation, np.ones_like(sigma), mask) / sigma)


def kelly(mean: Floats, covariance: Floats, mask: Mask) -> Floats:
    """Growth-optimal weights `max m'w - 1/2 w'Sw`, w >= 0, sum w <= 1; what is left of 1 is cash.

    Second-order expansion of E ln(1 + w'r) (Kelly 1956; Thorp 2006), all returns in excess of cash. A fraction f of
    Kelly is the same problem with the mean times f.

    Parameters
    ----------
    mean : [B, d] expected excess return, in the covariance's unit of time.
    covariance : [B, d, d].
    mask : [B, d].

    Returns
    -------
    [B, d] weights summing to at most 1.
    """
    sigma, correlation = standardise(covariance, mask)
    sharpe = np.where(mask, mean, 0.0) / sigma
    weights = nonnegative_qp(correlation, sharpe, mask) / sigma
    rows = np.flatnonzero(weights.sum(axis=1) > 1.0)
    if len(rows):  # no cash is left: the same on the plane sum w = 1
        rays = nonnegative_qp(correlation[rows], sharpe[rows], mask[rows], 1 / sigma[rows])
        weights[rows] = normalise(rays / sigma[rows])
    return weights


def standardise(covariance: Floats, mask: Mask) -> tuple[Floats, Floats]:
    """Volatilities [B, d] and correlations [B, d, d], 1 and identity outside the mask.

    Raises
    ------
    DataError
        If a name in the mask has no positive, finite variance.
    """
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    bad = mask & ~((variance > 0) & np.isfinite(variance))
    if bad.any():
        row, name = np.argwhere(bad)[0]
        raise DataError(
            f"covariance[{row}]: variance of name {name} is {variance[row, name]}; mask names without a positive one"
        )
    sigma = np.sqrt(np.where(mask, variance, 1.0))
    pair = mask[:, :, None] & mask[:, None, :]
    scaled = covariance / (sigma[:, :, None] * sigma[:, None, :])
    return sigma, np.where(pair, scaled, np.eye(mask.shape[1]))


def normalise(weights: Floats) -> Floats:
    """Each row of [B, d] divided by its sum; rows of zeros stay."""
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
