"""Probabilistic and deflated Sharpe ratio against the published example and skfolio."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import skew
from skfolio.measures import deflated_sharpe_ratio, expected_max_sharpe_ratio, probabilistic_sharpe_ratio

from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.selection_bias import deflated_sharpe, effective_trials, expected_best, probabilistic_sharpe
from finflow.seeding import numpy_stream


@pytest.mark.parametrize(
    ("trials", "skewness", "kurtosis", "published"),
    [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)],
)
def test_the_example_of_bailey_and_lopez_de_prado(
    trials: int, skewness: float, kurtosis: float, published: float
) -> None:
    # Annualised ratio 2.5 over 1250 days, 250 a year; variance of the trials' annualised ratios 1/2.
    hurdle = expected_best(trials, math.sqrt(0.5 / 250))
    if trials == 100:
        assert_allclose(hurdle, 0.1132, rtol=0, atol=5e-5)
    found = probabilistic_sharpe(2.5 / math.sqrt(250), hurdle, 1250, skewness, kurtosis)
    assert_allclose(found, published, rtol=0, atol=5e-5)


def sweep(days: int, trials: int, rng: np.random.Generator) -> np.ndarray:
    """[R, M] active returns, skewed, with fat tails and a common part."""
    own = rng.standard_t(5, (days, trials)) + 0.4 * rng.exponential(1.0, (days, trials)) - 0.35
    return 0.003 * (own + rng.standard_normal((days, 1)))


def test_agrees_with_skfolio() -> None:
    active = sweep(500, 12, numpy_stream(1, "test"))
    ratios = active.mean(0) / active.std(0, ddof=1)
    chosen = int(ratios.argmax())
    found = deflated_sharpe(active, chosen, 12)
    assert abs(skew(active[:, chosen])) > 0.05  # the third moment takes part
    assert_allclose(found.sharpe, sharpe_ratio(active[:, chosen]), rtol=0, atol=1e-12)
    assert_allclose(found.probabilistic, probabilistic_sharpe_ratio(active[:, chosen]), rtol=0, atol=1e-12)
    assert_allclose(found.deflated, deflated_sharpe_ratio(active[:, chosen], ratios), rtol=0, atol=1e-12)
    hurdle = expected_max_sharpe_ratio(found.effective_trials, float(ratios.std(ddof=1)))
    assert_allclose(found.hurdle_effective, hurdle * math.sqrt(252), rtol=0, atol=1e-12)
    assert_allclose(found.deflated_effective, probabilistic_sharpe_ratio(active[:, chosen], hurdle), rtol=0, atol=1e-12)


def test_crashed_trials_raise_the_hurdle() -> None:
    active = sweep(500, 12, numpy_stream(1, "test"))
    ratios = active.mean(0) / active.std(0, ddof=1)
    found = deflated_sharpe(active, 3, 20)
    expected = expected_max_sharpe_ratio(20, float(ratios.std(ddof=1))) * math.sqrt(252)
    assert_allclose(found.hurdle, expected, rtol=0, atol=1e-12)
    fewer = deflated_sharpe(active, 3, 12)
    assert found.deflated < fewer.deflated < fewer.probabilistic
    assert found.deflated_effective == fewer.deflated_effective
    with pytest.raises(ValueError, match="12 have returns"):
        deflated_sharpe(active, 3, 11)


def test_expected_best_of_useless_trials_agrees_with_simulation() -> None:
    draws = numpy_stream(2, "test").standard_normal((20_000, 50))
    assert_allclose(expected_best(50, 1.0), draws.max(1).mean(), rtol=0, atol=0.03)


def test_hurdle_is_never_below_zero() -> None:
    assert expected_best(1.0, 0.5) == 0.0
    assert expected_best(1.1, 0.5) == 0.0  # the formula itself says less
    assert expected_max_sharpe_ratio(1.1, 0.5) < -0.15
    grid = [expected_best(n, 1.0) for n in np.linspace(1, 30, 200)]
    assert all(b >= a for a, b in itertools.pairwise(grid))


def test_effective_trials_of_known_matrices() -> None:
    rng = numpy_stream(3, "test")
    basis = np.linalg.qr(np.column_stack([np.ones(400), rng.standard_normal((400, 4))]))[0][
        :, 1:
    ]  # mean 0, orthonormal
    assert_allclose(effective_trials(basis), 4.0, rtol=0, atol=1e-9)
    copies = np.column_stack([basis[:, 0], 3 * basis[:, 0], -basis[:, 0], basis[:, 1]])
    assert_allclose(effective_trials(copies), 16 / (9 + 1), rtol=0, atol=1e-9)  # eigenvalues 3, 1, 0, 0
    rho = 0.5
    mixed = np.sqrt(1 - rho) * basis[:, :3] + np.sqrt(rho) * basis[:, [3]]
    assert_allclose(effective_trials(mixed), 9 / (3 + 6 * rho**2), rtol=0, atol=1e-9)
    active = sweep(300, 8, rng)
    values = np.linalg.eigvalsh(np.corrcoef(active, rowvar=False))
    assert_allclose(effective_trials(active), values.sum() ** 2 / (values**2).sum(), rtol=0, atol=1e-9)


def test_undefined_ratios_are_nan_and_trials_on_the_benchmark_only_count() -> None:
    active = sweep(300, 5, numpy_stream(5, "test"))
    with_idle = np.column_stack([active, np.zeros(300)])
    idle = deflated_sharpe(with_idle, 5, 6)
    assert math.isnan(idle.sharpe)
    assert math.isnan(idle.deflated)
    assert deflated_sharpe(with_idle, 2, 6) == deflated_sharpe(active, 2, 6)
    single = deflated_sharpe(active[:, :1], 0, 1)
    assert single.deflated == single.deflated_effective == single.probabilistic
    assert single.effective_trials == 1.0
    assert math.isnan(deflated_sharpe(active[:, :1], 0, 4).deflated)  # one ratio shows no spread
    assert math.isnan(probabilistic_sharpe(1.0, 0.0, 100, 3.0, 3.0))


def test_the_best_of_many_useless_trials_is_certain_before_and_not_after() -> None:
    rng = numpy_stream(6, "test")
    before, after = [], []
    for _ in range(100):
        active = 0.01 * rng.standard_normal((750, 60))
        found = deflated_sharpe(active, int(active.mean(0).argmax()), 60)
        before.append(found.probabilistic)
        after.append(found.deflated)
    assert np.mean(before) > 0.97
    assert 0.4 < np.mean(after) < 0.6
