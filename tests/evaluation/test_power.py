"""What a window can detect: the project's own claim, closed forms and Monte Carlo."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from finflow.evaluation.sharpe_test import detectable_difference, sharpe_difference
from finflow.seeding import numpy_stream


def test_five_years_at_correlation_95_show_a_gain_of_40() -> None:
    for sharpe in (0.0, 0.9):
        assert_allclose(detectable_difference(sharpe, 0.95, 1260), 0.40, rtol=0, atol=0.005)


def standard_error(first: float, second: float, correlation: float, days: int) -> float:
    """Of the difference of two annualised Sharpe ratios (Memmel 2003)."""
    ratios = (first**2 + second**2 - 2 * first * second * correlation**2) / 252
    return math.sqrt((2 * (1 - correlation) + ratios / 2) * 252 / days)


@pytest.mark.parametrize("sharpe", [-1.0, 0.5, 3.0])
@pytest.mark.parametrize("correlation", [-0.3, 0.8, 0.99])
def test_the_gain_is_its_own_error_times_the_quantiles(sharpe: float, correlation: float) -> None:
    gain = detectable_difference(sharpe, correlation, 400)
    error = standard_error(sharpe + gain, sharpe, correlation, 400)
    assert_allclose(gain, (norm.ppf(0.975) + norm.ppf(0.8)) * error, rtol=0, atol=1e-10)
    assert gain > 0


def test_a_handful_of_days_shows_nothing() -> None:
    assert detectable_difference(0.5, 0.5, 3) == math.inf


def test_the_verdicts_own_test_finds_that_gain_in_four_of_five_cases() -> None:
    days, correlation, theirs = 500, 0.9, 1.0
    ours = theirs + detectable_difference(theirs, correlation, days)
    rng = numpy_stream(1, "test")
    cases = 250
    found = 0
    for _ in range(cases):
        z = rng.standard_normal((days, 2))
        z[:, 1] = correlation * z[:, 0] + math.sqrt(1 - correlation**2) * z[:, 1]
        x = 0.01 * (z + np.array([ours, theirs]) / math.sqrt(252))
        found += sharpe_difference(x[:, 0], x[:, 1], samples=199, block_days=1, rng=rng).low > 0
    assert abs(found / cases - 0.8) < 3 * math.sqrt(0.8 * 0.2 / cases)
