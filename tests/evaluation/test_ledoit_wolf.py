"""The whole Ledoit-Wolf test computed a second time: 4 x 4 matrices and loops, in the order of the paper."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from finflow.evaluation.sharpe_test import sharpe_difference
from finflow.seeding import numpy_stream


def returns(days: int, seed: int) -> np.ndarray:
    """[days, 2] daily returns with changing volatility, fat tails, autocorrelation and correlation near .9."""
    rng = numpy_stream(seed, "test")
    z = rng.standard_t(5, (days, 2))
    z[:, 1] = 0.9 * z[:, 0] + math.sqrt(1 - 0.81) * z[:, 1]
    volatility = np.ones(days)
    for t in range(1, days):
        volatility[t] = math.sqrt(
            0.05 + 0.1 * min(z[t - 1, 0] ** 2, 20) * volatility[t - 1] ** 2 / 2 + 0.88 * volatility[t - 1] ** 2
        )
        z[t] += 0.15 * z[t - 1]
    return 0.008 * volatility[:, None] * (z + np.array([0.12, 0.05]))


def moments_gradient(x: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Moments (mu1, mu2, gamma1, gamma2), their Sharpe difference and its gradient."""
    m1, m2 = x.mean(0)
    g1, g2 = (x**2).mean(0)
    gradient = np.array(
        [
            g1 / (g1 - m1**2) ** 1.5,
            -g2 / (g2 - m2**2) ** 1.5,
            -0.5 * m1 / (g1 - m1**2) ** 1.5,
            0.5 * m2 / (g2 - m2**2) ** 1.5,
        ]
    )
    return np.array([m1, m2, g1, g2]), m1 / math.sqrt(g1 - m1**2) - m2 / math.sqrt(g2 - m2**2), gradient


def hac_error(x: np.ndarray) -> float:
    """Delta-method standard error with the prewhitened quadratic-spectral long-run covariance matrix."""
    days = len(x)
    moments, _, gradient = moments_gradient(x)
    y = np.column_stack([x, x**2]) - moments
    unit = np.diag(y.std(0))
    y = y @ np.linalg.inv(unit)
    var = np.linalg.solve(y[:-1].T @ y[:-1], y[:-1].T @ y[1:]).T
    left, values, right = np.linalg.svd(var)
    var = left @ np.diag(np.minimum(values, 0.97)) @ right
    residual = np.array([y[t] - var @ y[t - 1] for t in range(1, days)])
    above = below = 0.0
    for column in residual.T:
        rho = column[:-1] @ column[1:] / (column[:-1] @ column[:-1])
        variance = np.mean((column[1:] - rho * column[:-1]) ** 2)
        above += 4 * rho**2 * variance**2 / (1 - rho) ** 8
        below += variance**2 / (1 - rho) ** 4
    bandwidth = 1.3221 * (above / below * (days - 1)) ** 0.2
    psi = residual.T @ residual / (days - 1)
    for lag in range(1, days - 1):
        z = 6 * math.pi * lag / bandwidth / 5
        weight = 3 / z**2 * (math.sin(z) / z - math.cos(z))
        autocovariance = residual[lag:].T @ residual[:-lag] / (days - 1)
        psi += weight * (autocovariance + autocovariance.T)
    recolour = unit @ np.linalg.inv(np.eye(4) - var)
    return math.sqrt(gradient @ recolour @ psi @ recolour.T @ gradient / days)


def bootstrap_p_value(x: np.ndarray, samples: int, block: int, rng: np.random.Generator) -> float:
    """Remark 3.2 of the paper: circular blocks of pairs, the natural standard error in each resample."""
    days = len(x)
    _, difference, _ = moments_gradient(x)
    observed = abs(difference) / hac_error(x)
    exceed = 1
    for _ in range(samples):
        starts = rng.integers(days, size=days // block)
        drawn = x[np.concatenate([np.arange(s, s + block) % days for s in starts])]
        moments, again, gradient = moments_gradient(drawn)
        y = np.column_stack([drawn, drawn**2]) - moments
        psi = np.zeros((4, 4))
        for j in range(days // block):
            zeta = y[j * block : (j + 1) * block].sum(0) / math.sqrt(block)
            psi += np.outer(zeta, zeta) / (days // block)
        exceed += abs(again - difference) / math.sqrt(gradient @ psi @ gradient / len(drawn)) >= observed
    return exceed / (samples + 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_standard_error_agrees(seed: int) -> None:
    x = returns(240, seed)
    found = sharpe_difference(x[:, 0], x[:, 1], samples=20, block_days=5, rng=numpy_stream(0, "verdict"))
    expected = hac_error(x) * math.sqrt(252 * 239 / 240)
    assert_allclose(found.standard_error, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("seed", "block"), [(4, 6), (2, 3), (3, 12)])
def test_p_value_agrees_up_to_the_draw(seed: int, block: int) -> None:
    x = returns(240, seed)
    samples = 2000
    found = sharpe_difference(x[:, 0], x[:, 1], samples=samples, block_days=block, rng=numpy_stream(0, "verdict"))
    expected = bootstrap_p_value(x, samples, block, numpy_stream(1, "test"))
    assert 0.02 < expected < 0.98
    draw = math.sqrt(2 * expected * (1 - expected) / samples)
    assert_allclose(found.p_value, expected, rtol=0, atol=4 * draw)


def test_p_value_tends_to_that_of_the_normal_distribution() -> None:
    rng = numpy_stream(4, "test")
    z = rng.standard_normal((5000, 2))
    x = 0.01 * (z @ np.array([[1.0, 0.8], [0.0, 0.6]]) + np.array([0.06, 0.04]))
    found = sharpe_difference(x[:, 0], x[:, 1], samples=5000, block_days=5, rng=numpy_stream(0, "verdict"))
    expected = 2 * norm.sf(abs(found.difference) / found.standard_error)
    assert 0.05 < expected < 0.95
    assert_allclose(found.p_value, expected, rtol=0, atol=0.03)
