"""Long-run variance of a linear combination of autocorrelated series: prewhitened quadratic-spectral HAC.

Andrews & Monahan (1992): a VAR(1) removes most of the autocorrelation, the kernel (bandwidth by Andrews 1991, AR(1)
plug-in) estimates the rest, and the VAR is put back.
"""

import numpy as np

from finflow.evaluation.result import Floats

STABLE = 0.97
"""Largest singular value left to the VAR, so that putting it back stays bounded (Andrews & Monahan)."""


def long_run_variance(centred: Floats, combination: Floats) -> float:
    """Variance of sqrt(R) times the mean of `centred @ combination`, autocorrelation included.

    Parameters
    ----------
    centred : [R, M] series with mean 0. Each is divided by its standard deviation first, so that neither the
        cap of the VAR nor the bandwidth depends on units.
    combination : [M] coefficients, here the gradient of a statistic.
    """
    scale = centred.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    series = centred / scale
    lagged, current = series[:-1], series[1:]
    transition = np.linalg.lstsq(lagged, current, rcond=None)[0].T
    left, values, right = np.linalg.svd(transition)
    transition = (left * np.minimum(values, STABLE)) @ right
    residual = current - lagged @ transition.T
    recolour = np.linalg.inv(np.eye(series.shape[1]) - transition)
    combined = residual @ (recolour.T @ (scale * combination))
    return kernel_variance(combined, andrews_bandwidth(residual))


def andrews_bandwidth(residual: Floats) -> float:
    """Bandwidth of the quadratic-spectral kernel for [R, M] series, each an AR(1) with equal weight (eq. 6.4)."""
    lagged, current = residual[:-1], residual[1:]
    power = np.sum(lagged**2, axis=0)
    rho = np.sum(lagged * current, axis=0) / np.where(power > 0, power, 1.0)
    rho = np.clip(rho, -STABLE, STABLE)
    fourth = np.mean((current - rho * lagged) ** 2, axis=0) ** 2
    curvature = np.sum(4 * rho**2 * fourth / (1 - rho) ** 8)
    level = np.sum(fourth / (1 - rho) ** 4)
    return 1.3221 * float(curvature / level * len(residual)) ** 0.2 if level > 0 else 0.0


def kernel_variance(series: Floats, bandwidth: float) -> float:
    """Sum of the autocovariances of a [R] series with mean near 0, weighted by the quadratic-spectral kernel."""
    days = len(series)
    padded = np.fft.rfft(series, 2 * days)
    covariances = np.fft.irfft(padded * padded.conj(), 2 * days)[:days] / days
    if bandwidth <= 1e-6:
        return float(covariances[0])
    angle = 1.2 * np.pi * np.arange(1, days) / bandwidth
    weights = 3 / angle**2 * (np.sin(angle) / angle - np.cos(angle))
    return float(covariances[0] + 2 * weights @ covariances[1:])
