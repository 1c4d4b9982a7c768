"""The Sharpe difference against closed forms, brute force and Monte Carlo."""

import math
import time

import numpy as np
import pytest
from arch.covariance.kernel import QuadraticSpectral

from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.sharpe_test import (
    difference_and_gradient,
    kernel_variance,
    long_run_variance,
    sharpe_difference,
    studentised_distances,
)
from finflow.seeding import numpy_stream


def pair(days: int, rng: np.random.Generator, correlation: float, ratios: tuple[float, float]) -> np.ndarray:
    """[days, 2] iid normal daily returns with the given correlation and daily Sharpe ratios."""
    z = rng.standard_normal((days, 2))
    z[:, 1] = correlation * z[:, 0] + math.sqrt(1 - correlation**2) * z[:, 1]
    return (z + np.array(ratios)) * np.array([0.01, 0.02])


def test_point_estimate_is_the_difference_of_the_reported_ratios() -> None:
    x = pair(500, numpy_stream(0, "test"), 0.9, (0.06, 0.03))
    result = sharpe_difference(x[:, 0], x[:, 1], samples=200, block_days=21, rng=numpy_stream(0, "verdict"))
    first, second = sharpe_ratio(x[:, 0]), sharpe_ratio(x[:, 1])
    assert first is not None
    assert second is not None
    assert result.difference == pytest.approx(first - second, abs=1e-12)
    assert (result.low + result.high) / 2 == pytest.approx(result.difference)


def test_gradient_is_the_derivative() -> None:
    moments = np.array([6e-4, 3e-4, 1.3e-4, 4.1e-4])
    _, gradient = difference_and_gradient(moments)
    for i in range(4):
        step = np.zeros(4)
        step[i] = moments[i] * 1e-5
        up, down = difference_and_gradient(moments + step)[0], difference_and_gradient(moments - step)[0]
        assert gradient[i] == pytest.approx((up - down) / (2 * step[i]), rel=1e-6)


def test_standard_error_agrees_with_jobson_korkie_memmel_on_iid_normal_data() -> None:
    days, rho = 40_000, 0.7
    x = pair(days, numpy_stream(1, "test"), rho, (0.3, 0.1))
    result = sharpe_difference(x[:, 0], x[:, 1], samples=100, block_days=5, rng=numpy_stream(0, "verdict"))
    closed = math.sqrt((2 - 2 * rho + 0.5 * (0.3**2 + 0.1**2 - 2 * 0.3 * 0.1 * rho**2)) / days * 252)
    assert result.standard_error == pytest.approx(closed, rel=0.03)


def test_long_run_variance_of_an_autoregression() -> None:
    rng = numpy_stream(2, "test")
    shocks = rng.standard_normal((60_000, 2))
    series = np.zeros_like(shocks)
    for t in range(1, len(series)):
        series[t] = 0.5 * series[t - 1] + shocks[t]
    scaled = (series - series.mean(0)) * np.array([1e-4, 1e3])  # units do not matter
    found = long_run_variance(scaled, np.array([1e4, -2e-3]))
    assert found == pytest.approx(4.0 + 4 * 4.0, rel=0.06)  # 1 / (1 - 0.5)^2 each, coefficients 1 and -2


def test_kernel_agrees_with_arch() -> None:
    x = np.convolve(numpy_stream(3, "test").standard_normal(800), [1, 0.5, 0.2])[:800]
    x -= x.mean()
    for bandwidth in (1.5, 5.3, 20.0):
        oracle = QuadraticSpectral(x[:, None], bandwidth=bandwidth, center=False).cov.long_run
        assert kernel_variance(x, bandwidth) == pytest.approx(float(np.asarray(oracle)[0, 0]), rel=1e-9)


@pytest.mark.parametrize("block", [1, 4, 7])
def test_bootstrap_agrees_with_resampling_row_by_row(block: int) -> None:
    days = 30
    x = pair(days, numpy_stream(4, "test"), 0.8, (0.1, 0.0))
    data = np.concatenate([x, x**2], axis=1)
    estimate = float(difference_and_gradient(data.mean(0))[0])
    found = studentised_distances(data, estimate, 20, block, np.random.default_rng(5))
    count, rest = divmod(days, block)
    picked = np.random.default_rng(5).integers(days, size=(20, count + 1))
    for sample, starts in enumerate(picked):
        rows = [(s + i) % days for s in starts[:-1] for i in range(block)] + [
            (starts[-1] + i) % days for i in range(rest)
        ]
        drawn = x[rows]
        mean, std = drawn.mean(0), drawn.std(0)
        moments = np.concatenate([mean, (drawn**2).mean(0)])
        centred = np.concatenate([drawn, drawn**2], axis=1) - moments
        zeta = np.stack([centred[j * block : (j + 1) * block].sum(0) / math.sqrt(block) for j in range(count)])
        gradient = difference_and_gradient(moments)[1]
        error = math.sqrt(gradient @ (zeta.T @ zeta / count) @ gradient / days)
        difference = mean[0] / std[0] - mean[1] / std[1]
        assert found[sample] == pytest.approx(abs(difference - estimate) / error, rel=1e-7)


def test_interval_covers_a_known_difference_in_95_of_100_cases() -> None:
    rng = numpy_stream(6, "test")
    truth = (0.10 - 0.04) * math.sqrt(252)
    hits = rejections = 0
    cases = 500
    for _ in range(cases):
        x = pair(250, rng, 0.8, (0.10, 0.04))
        result = sharpe_difference(x[:, 0], x[:, 1], samples=199, block_days=5, rng=rng)
        hits += result.low <= truth <= result.high
        y = pair(250, rng, 0.8, (0.05, 0.05))
        rejections += sharpe_difference(y[:, 0], y[:, 1], samples=199, block_days=5, rng=rng).p_value <= 0.05
    assert 0.92 <= hits / cases <= 0.98  # the Monte Carlo's own error is 0.01
    assert 0.02 <= rejections / cases <= 0.08


def test_p_value_and_interval_tell_the_same_story() -> None:
    rng = numpy_stream(7, "test")
    for _ in range(30):
        x = pair(120, rng, 0.9, (0.15, 0.05))
        r = sharpe_difference(x[:, 0], x[:, 1], samples=199, block_days=5, rng=rng)
        assert (r.low > 0 or r.high < 0) == (r.p_value <= 0.05)


def test_equal_and_proportional_series_differ_by_nothing() -> None:
    x = pair(300, numpy_stream(8, "test"), 0.5, (0.1, 0.0))[:, 0]
    for other in (x, 3.0 * x):
        r = sharpe_difference(x, other.copy(), samples=100, block_days=21, rng=numpy_stream(0, "verdict"))
        assert (r.difference, r.low, r.high, r.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_without_volatility_nothing_is_defined() -> None:
    x = pair(300, numpy_stream(8, "test"), 0.5, (0.1, 0.0))[:, 0]
    r = sharpe_difference(np.zeros(300), x, samples=100, block_days=21, rng=numpy_stream(0, "verdict"))
    assert all(math.isnan(v) for v in (r.difference, r.low, r.high, r.p_value))


def test_resamples_without_volatility_widen_the_interval_rather_than_vanish() -> None:
    one_day = np.zeros(100)
    one_day[40] = 0.05  # a third of the resamples miss the only day that moved
    x = pair(100, numpy_stream(9, "test"), 0.5, (0.1, 0.0))[:, 0]
    r = sharpe_difference(one_day, x, samples=400, block_days=1, rng=numpy_stream(0, "verdict"))
    assert (r.low, r.high) == (-math.inf, math.inf)


def test_short_windows_shorten_the_blocks() -> None:
    x = pair(60, numpy_stream(8, "test"), 0.5, (0.1, 0.0))
    r = sharpe_difference(x[:, 0], x[:, 1], samples=100, block_days=21, rng=numpy_stream(0, "verdict"))
    assert r.block_days == 12


def test_five_thousand_samples_of_five_years_take_no_time_and_repeat() -> None:
    x = pair(1260, numpy_stream(10, "test"), 0.95, (0.06, 0.03))
    begin = time.perf_counter()
    r = sharpe_difference(x[:, 0], x[:, 1], samples=5000, block_days=21, rng=numpy_stream(0, "verdict"))
    assert time.perf_counter() - begin < 3.0
    again = sharpe_difference(x[:, 0], x[:, 1], samples=5000, block_days=21, rng=numpy_stream(0, "verdict"))
    assert again == r
