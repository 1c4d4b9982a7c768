"""The critic judged by what came: known answers for a critic that is right, too sure, and biased."""

from statistics import NormalDist

import numpy as np
import pytest

from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.value_distribution import HORIZON, Calibration, calibrate, distribution, judge_atoms

GAMMA, DAYS, ATOMS = 0.9, 6000, 32
MEAN, STD = 0.1, 2.0


def judged(spread: float = 1.0, shift: float = 0.0) -> Calibration:
    """Independent normal rewards, and the normal law of their discounted sum, its spread and level changed."""
    rng = np.random.default_rng(0)
    reward = MEAN + STD * rng.standard_normal(DAYS)
    whole = NormalDist(MEAN / (1 - GAMMA) + shift, spread * STD / (1 - GAMMA**2) ** 0.5)
    atoms = np.array([whole.inv_cdf((j + 0.5) / ATOMS) for j in range(ATOMS)])
    return judge_atoms(np.tile(atoms, (DAYS, 1)), reward, GAMMA, np.random.default_rng(1))


def test_a_critic_that_is_right() -> None:
    found = judged()
    assert found.days == DAYS - HORIZON
    assert found.spread_ratio == pytest.approx(1.0, abs=0.05)
    assert found.coverage == pytest.approx(0.9, abs=0.02)
    np.testing.assert_allclose(found.curve, found.levels, atol=0.03)
    assert sum(found.histogram) == pytest.approx(1.0)
    inside = [low <= level <= high for level, low, high in zip(found.levels, found.low, found.high, strict=True)]
    assert np.mean(inside) > 0.8
    assert found.bias_low < 0.0 < found.bias_high


def test_a_critic_too_sure_of_itself() -> None:
    found = judged(spread=0.5)
    assert found.spread_ratio == pytest.approx(2.0, rel=0.05)
    assert found.coverage < 0.75
    assert found.histogram[0] > 0.15


def test_a_critic_not_sure_enough() -> None:
    found = judged(spread=2.0)
    assert found.spread_ratio == pytest.approx(0.5, rel=0.05)
    assert found.coverage > 0.95


def test_a_critic_that_hopes_too_much() -> None:
    found = judged(shift=4.0)
    assert found.bias == pytest.approx(-4.0 * (1 - GAMMA**HORIZON), rel=0.1)
    assert found.bias_high < 0.0
    assert found.curve[9] > 0.6


def test_distribution_by_hand() -> None:
    atoms = np.array([0.0, 1.0, 3.0, 4.0])  # at .125, .375, .625, .875
    values = np.array([-1.0, 0.0, 0.5, 2.0, 4.0, 9.0])
    np.testing.assert_allclose(distribution(atoms, values), [0.0625, 0.125, 0.25, 0.5, 0.875, 0.9375])


def test_over_a_window_it_uses_the_rewards_of_the_environment(scene: DecisionTrace) -> None:
    found = calibrate(scene, np.random.default_rng(0))
    assert found is not None
    assert found.days == len(scene.rows) - HORIZON
    again = calibrate(scene, np.random.default_rng(0))
    assert again == found
