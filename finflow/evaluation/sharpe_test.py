"""Difference of two Sharpe ratios with a studentised circular block bootstrap (Ledoit & Wolf 2008).

"Robust performance hypothesis testing with the Sharpe ratio", J. Empirical Finance 15: the difference is a smooth
function of the moments v = (mu1, mu2, gamma1, gamma2), gamma the uncentred second moment; the delta method gives
its standard error, with a long-run covariance on the data and the natural block one inside the bootstrap.

The long-run covariance is the prewhitened quadratic-spectral one of Andrews & Monahan (1992): a VAR(1) removes most of
the autocorrelation, the kernel (bandwidth by Andrews 1991, AR(1) plug-in) estimates the rest, and the VAR is put back.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from finflow.data.market import TRADING_YEAR
from finflow.evaluation.metrics import FLAT
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


CHUNK = 500  # bootstrap samples held in memory at once
EQUAL = 1e-10
"""A daily standard error below this is rounding: the two series have one and the same Sharpe ratio by
construction (equal, or one a multiple of the other), since real ones differ by sqrt(2 (1 - correlation) / R)."""


@dataclass(frozen=True)
class SharpeDifference:
    """Annualised difference, its symmetric studentised 95 % interval, and the p-value of no difference.

    All are nan where a series has no volatility. `block_days` is what was used.
    """

    difference: float
    low: float
    high: float
    p_value: float
    standard_error: float
    block_days: int


def sharpe_difference(
    first: Floats, second: Floats, *, samples: int, block_days: int, rng: np.random.Generator, year: int = TRADING_YEAR
) -> SharpeDifference:
    """Test whether two paired series of returns have different Sharpe ratios.

    Parameters
    ----------
    first, second : [R] daily returns of the same days; their Sharpe ratios use ddof 1, as `metrics` does.
    samples : bootstrap samples.
    block_days : length of the circular blocks; at most a fifth of R is used, so that five blocks make a sample.
    rng : the named stream of the draw.
    year : rows a year.

    Returns
    -------
    SharpeDifference
        Series whose influence on the difference vanishes (equal, or multiples of each other) give exactly 0 with
        the interval [0, 0] and p 1.
    """
    days = len(first)
    block = max(1, min(block_days, days // 5))
    if days < 5 or np.ptp(first) < FLAT or np.ptp(second) < FLAT:
        nan = math.nan
        return SharpeDifference(nan, nan, nan, nan, nan, block)
    pair = np.stack([first, second], axis=1)
    data = np.concatenate([pair, pair**2], axis=1)
    moments = data.mean(0)
    estimate, gradient = difference_and_gradient(moments)
    error = math.sqrt(max(long_run_variance(data - moments, gradient), 0.0) / days)
    annual = math.sqrt(year * (days - 1) / days)  # from moments with ddof 0 to the annualised ratio with ddof 1
    if error < EQUAL:
        return SharpeDifference(0.0, 0.0, 0.0, 1.0, 0.0, block)
    spread = studentised_distances(data, float(estimate), samples, block, rng)
    rank = min(math.ceil(0.95 * (samples + 1)), samples) - 1
    half = float(np.partition(spread, rank)[rank]) * error
    p_value = (1 + int(np.sum(spread >= abs(float(estimate)) / error))) / (samples + 1)
    low, high = (annual * (float(estimate) + side * half) for side in (-1, 1))
    return SharpeDifference(annual * float(estimate), low, high, p_value, annual * error, block)


def difference_and_gradient(moments: Floats) -> tuple[Floats, Floats]:
    """Daily Sharpe difference mu1 / s1 - mu2 / s2 [...] and its gradient [..., 4] at v = (mu1, mu2, gamma1, gamma2).

    s^2 = gamma - mu^2; nan where that is not positive.
    """
    mean, second = moments[..., :2], moments[..., 2:]
    variance = second - mean**2
    # gamma - mu^2 is rounded by about 1e-16 gamma; a sample of one repeated day has no risk.
    variance = np.where(variance > 1e-13 * second, variance, np.nan)
    ratio = mean / np.sqrt(variance)
    sign = np.array([1.0, -1.0])
    gradient = np.concatenate([sign * second / variance**1.5, -0.5 * sign * mean / variance**1.5], axis=-1)
    return ratio[..., 0] - ratio[..., 1], gradient


def studentised_distances(data: Floats, estimate: float, samples: int, block: int, rng: np.random.Generator) -> Floats:
    """Bootstrap |D* - D| / s(D*) of [R, 4] rows (r1, r2, r1^2, r2^2); [samples], inf where s(D*) is undefined.

    A sample is floor(R / block) circular blocks and a shorter one for the rest. s(D*) is the delta method over
    the natural covariance of the full blocks, Psi* = mean_j zeta_j zeta_j', zeta_j = block^-1/2 sum of centred rows.
    Only sums of blocks enter, so each is summed once for all samples.
    """
    days = len(data)
    count, rest = divmod(days, block)
    full, short = circular_sums(data, block), circular_sums(data, rest)
    distances = np.empty(samples)
    for start in range(0, samples, CHUNK):
        size = min(CHUNK, samples - start)
        picked = rng.integers(days, size=(size, count + 1))
        sums = full[picked[:, :-1]]  # [size, count, 4]
        moments = (sums.sum(1) + short[picked[:, -1]]) / days
        drawn, gradient = difference_and_gradient(moments)
        influence = np.einsum("sbm,sm->sb", sums, gradient) - block * np.einsum("sm,sm->s", moments, gradient)[:, None]
        error = np.sqrt(np.mean(influence**2, axis=1) / block / days)
        usable = error > EQUAL  # False for nan
        ratio = np.abs(drawn - estimate) / np.where(usable, error, 1.0)
        distances[start : start + size] = np.where(usable, ratio, np.inf)
    return distances


def circular_sums(data: Floats, length: int) -> Floats:
    """Sum of `length` rows from each row on, wrapping round: [R, M] -> [R, M]."""
    wrapped = np.concatenate([np.zeros((1, data.shape[1])), data, data[: max(length - 1, 0)]]).cumsum(0)
    return wrapped[length : length + len(data)] - wrapped[: len(data)]


def detectable_difference(sharpe: float, correlation: float, days: int, year: int = TRADING_YEAR) -> float:
    """Smallest gain in annualised Sharpe ratio whose two-sided 95 % interval lies above 0 with a probability of 80 %.

    For independent normal days the difference of two paired Sharpe ratios has the variance

        (2 (1 - rho) + (s1^2 + s2^2 - 2 s1 s2 rho^2) / 2) / R,    s the ratios per day

    (Jobson & Korkie 1981, Memmel 2003), which ignores autocorrelation and fat tails; both increase it. The gain d
    solves d = (z(.975) + z(.8)) * error(sharpe + d, sharpe), error the square root of that variance:
    a quadratic equation. Chance findings on the other side, which a two-sided test also has, are left out.

    Parameters
    ----------
    sharpe : the opponent's annualised Sharpe ratio.
    correlation : of the two series of daily returns, `year` of which are a year.
    days : length of the window.

    Returns
    -------
    float
        Annualised; inf where no gain is enough, since the error grows with it (a handful of days).
    """
    quantiles = float(norm.ppf(0.975) + norm.ppf(0.8))
    share = quantiles**2 / days
    daily = sharpe / math.sqrt(year)
    # a d^2 - 2 b d - c = 0, from the variance above with s1 = s2 + d.
    a = 1 - share / 2
    b = share * daily * (1 - correlation**2) / 2
    c = share * (2 * (1 - correlation) + daily**2 * (1 - correlation**2))
    if a <= 0:
        return math.inf
    return math.sqrt(year) * (b + math.sqrt(b * b + a * c)) / a
