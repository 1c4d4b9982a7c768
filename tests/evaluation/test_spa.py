"""Hansen's test against his paper's formulas resample by resample, arch's own figures, and Monte Carlo."""

import math

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap
from numpy.testing import assert_allclose

from finflow.evaluation.spa import sharpe_contributions, stationary_variance, superior_predictive_ability
from finflow.seeding import numpy_stream


def market(days: int, strategies: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[R, M] strategies and [R] benchmark, all with the same true Sharpe ratio, correlated .9, volatilities apart."""
    common = rng.standard_normal((days, 1))
    own = rng.standard_normal((days, strategies + 1))
    z = 0.05 + math.sqrt(0.9) * common + math.sqrt(0.1) * own
    scaled = 0.01 * z * np.linspace(0.5, 2.0, strategies + 1)
    return scaled[:, 1:], scaled[:, 0]


def recomputed(excess: np.ndarray, samples: int, block: int, seed: int) -> list[float]:
    """p-values (lower, consistent, upper) by the paper's formulas, one resample after the other."""
    days, count = excess.shape
    mean = excess.mean(0)
    omega = np.empty(count)
    for k in range(count):
        y = excess[:, k] - mean[k]
        total = y @ y / days
        for i in range(1, days):
            kappa = (days - i) / days * (1 - 1 / block) ** i + i / days * (1 - 1 / block) ** (days - i)
            total += 2 * kappa * (y[:-i] @ y[i:]) / days
        omega[k] = math.sqrt(total)
    statistic = max(math.sqrt(days) * mean[k] / omega[k] for k in range(count))
    bound = -omega / math.sqrt(days) * math.sqrt(2 * math.log(math.log(days)))
    recentre = [np.maximum(mean, 0), np.where(mean >= bound, mean, 0), mean]
    exceed = [0, 0, 0]
    bootstrap = StationaryBootstrap(block, np.arange(days), seed=np.random.default_rng(seed))
    for (rows,), _ in bootstrap.bootstrap(samples):
        drawn = excess[rows].mean(0)
        for j, centre in enumerate(recentre):
            exceed[j] += max(math.sqrt(days) * (drawn - centre) / omega) > statistic
    return [(1 + e) / (samples + 1) for e in exceed]


def test_p_values_agree_with_the_papers_formulas() -> None:
    strategies, benchmark = market(150, 4, numpy_stream(1, "test"))
    strategies[:, 1] -= 0.004  # so poor that the consistent p-value leaves it out and the upper one does not
    excess = np.empty_like(strategies)
    for k in range(4):
        for t in range(150):
            excess[t, k] = contribution(strategies[:, k], t) - contribution(benchmark, t)
    p_values = recomputed(excess, 200, 5, seed=3)
    found = superior_predictive_ability(strategies, benchmark, samples=200, block_days=5, rng=np.random.default_rng(3))
    assert_allclose([found.lower, found.consistent, found.upper], p_values, rtol=0, atol=1e-12)
    assert found.lower <= found.consistent < found.upper


def contribution(returns: np.ndarray, day: int) -> float:
    """Sharpe ratio plus its influence function at one day, by the numerical derivative of reweighting that day."""

    def ratio(weight: float) -> float:
        weights = np.full(len(returns), (1 - weight) / len(returns))
        weights[day] += weight
        mean = weights @ returns
        return mean / math.sqrt(weights @ (returns - mean) ** 2)

    return ratio(0.0) + (ratio(1e-6) - ratio(-1e-6)) / 2e-6


def test_contributions_average_to_the_sharpe_ratios() -> None:
    strategies, _ = market(300, 3, numpy_stream(2, "test"))
    expected = strategies.mean(0) / strategies.std(0)
    assert_allclose(sharpe_contributions(strategies).mean(0), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("block", [1, 7])
def test_variance_agrees_with_arch(block: int) -> None:
    x = np.apply_along_axis(np.convolve, 0, numpy_stream(3, "test").standard_normal((200, 3)), [1, 0.5, 0.3])
    test = SPA(np.zeros(len(x)), -x, block_size=block, reps=10, seed=0)
    test.compute()
    assert_allclose(stationary_variance(x, block), test._loss_diff_var, rtol=0, atol=1e-10)


def test_without_skill_one_test_in_twenty_rejects_at_most_and_risk_alone_is_no_skill() -> None:
    rng = numpy_stream(4, "test")
    cases = 120
    rejected, earned = 0, list[float]()
    for _ in range(cases):
        strategies, benchmark = market(250, 5, rng)
        found = superior_predictive_ability(strategies, benchmark, samples=99, block_days=3, rng=rng)
        rejected += found.consistent <= 0.05
        earned.append(float(strategies.mean() - benchmark.mean()))
    assert rejected / cases <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / cases)
    assert np.mean(earned) > 5 * np.std(earned) / math.sqrt(cases)  # equal Sharpe ratios, but more risk earns more


def test_one_better_strategy_among_many_is_found() -> None:
    strategies, benchmark = market(1000, 8, numpy_stream(5, "test"))
    strategies[:, 6] += 0.1 * strategies[:, 6].std()  # 1.6 a year more
    found = superior_predictive_ability(
        strategies, benchmark, samples=500, block_days=10, rng=numpy_stream(0, "superior ability")
    )
    assert found.upper < 0.01
    again = superior_predictive_ability(
        strategies, benchmark, samples=500, block_days=10, rng=numpy_stream(0, "superior ability")
    )
    assert again == found


def test_the_benchmark_itself_and_cash_are_left_out() -> None:
    strategies, benchmark = market(300, 5, numpy_stream(6, "test"))
    strategies[:, 0] = benchmark
    strategies[:, 2] = 1.7 * benchmark
    strategies[:, 3] = 0.0
    strategies[:, 4] += 0.2 * strategies[:, 4].std()
    with np.errstate(all="raise"):
        found = superior_predictive_ability(
            strategies, benchmark, samples=99, block_days=5, rng=numpy_stream(0, "test")
        )
        kept = superior_predictive_ability(
            strategies[:, [1, 4]], benchmark, samples=99, block_days=5, rng=numpy_stream(0, "test")
        )
    assert found == kept
    alone = superior_predictive_ability(
        strategies[:, [0, 3]], benchmark, samples=99, block_days=5, rng=numpy_stream(0, "test")
    )
    assert (alone.lower, alone.consistent, alone.upper) == (1.0, 1.0, 1.0)
    assert math.isnan(
        superior_predictive_ability(
            strategies, np.zeros(300), samples=99, block_days=5, rng=numpy_stream(0, "test")
        ).consistent
    )
    few = superior_predictive_ability(
        strategies[:4], benchmark[:4], samples=99, block_days=5, rng=numpy_stream(0, "test")
    )
    assert math.isnan(few.upper)
