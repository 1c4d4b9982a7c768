"""What gate and regime share: known answers, and a null that respects how long regimes last."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from finflow.evaluation.metrics import follows_regime, gate_information

DAYS, EXPERTS = 750, 5


def regimes(rng: np.random.Generator, days: int = DAYS, stay: float = 0.98) -> NDArray[np.int8]:
    """A Markov chain of three labels that lasts 1 / (1 - stay) days in each."""
    jumps = rng.random(days) > stay
    drawn = rng.integers(3, size=days)
    last = np.maximum.accumulate(np.where(jumps | (np.arange(days) == 0), np.arange(days), 0))
    return drawn[last].astype(np.int8)


def slow_gate(rng: np.random.Generator, days: int = DAYS, pace: float = 0.02) -> NDArray[np.float64]:
    """Softmax of slow random walks that pull back: it knows nothing of any regime."""
    scores = np.zeros((days, EXPERTS))
    for t in range(1, days):
        scores[t] = (1 - pace) * scores[t - 1] + np.sqrt(2 * pace) * rng.normal(size=EXPERTS)
    return _softmax(scores)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(scores)
    return shares / shares.sum(1, keepdims=True)


def test_known_answers() -> None:
    regime = np.array([0, 1, 2, 3] * 25, dtype=np.int8)
    assert gate_information(np.eye(4)[regime], regime) == pytest.approx(math.log(4), abs=1e-12)
    assert gate_information(np.full((100, 4), 0.25), regime) == pytest.approx(0.0, abs=1e-12)
    assert gate_information(np.tile([0.7, 0.3], (100, 1)), regime) == pytest.approx(0.0, abs=1e-12)
    halves = np.repeat(np.array([0, 1], dtype=np.int8), 50)
    gate = np.where(halves[:, None] == 0, [[0.9, 0.1]], [[0.1, 0.9]])
    own = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert gate_information(gate, halves) == pytest.approx(math.log(2) - own, abs=1e-12)


def test_moving_within_a_regime_is_no_information_about_it() -> None:
    regime = np.repeat(np.array([0, 3], dtype=np.int8), 50)
    gate = np.tile([[0.9, 0.1], [0.1, 0.9]], (50, 1))
    assert gate_information(gate, regime) == pytest.approx(0.0, abs=1e-12)


def test_the_null_is_every_circular_shift() -> None:
    rng = np.random.default_rng(0)
    gate, regime = slow_gate(rng, 60), regimes(rng, 60, 0.9)
    found = follows_regime(gate, regime)
    assert found is not None
    null = [gate_information(gate, np.roll(regime, days)) for days in range(60)]
    assert found.nats == pytest.approx(null[0], abs=1e-12)
    assert found.chance == pytest.approx(float(np.quantile(null, 0.95)), abs=1e-12)
    assert found.p_value == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-12), abs=1e-12)


def test_planted_dependence_is_found() -> None:
    """A gate whose own slow noise is as large as its answer to the regime."""
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        regime = regimes(rng)
        scores = np.log(slow_gate(rng)) + 2.0 * np.eye(EXPERTS)[regime]
        result = follows_regime(_softmax(scores), regime)
        assert result is not None
        found += result.found
        assert result.found == (result.p_value <= 0.05) == (result.nats > result.chance)
    assert found >= 19


def test_independence_is_not_found_though_both_are_slow() -> None:
    """5 % of independent pairs may be found; a shuffle of single days would find nearly all of them."""
    shifted, shuffled = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        gate, regime = slow_gate(rng), regimes(rng)
        result = follows_regime(gate, regime)
        assert result is not None
        shifted += result.found
        null = [gate_information(gate, rng.permutation(regime)) for _ in range(40)]
        shuffled += result.nats > np.quantile(null, 0.95)
    assert shifted <= 12, "three standard errors over 5 of 100"
    assert shuffled >= 90


def test_one_expert_or_one_regime_has_no_answer() -> None:
    rng = np.random.default_rng(0)
    assert follows_regime(np.ones((DAYS, 1)), regimes(rng)) is None
    assert follows_regime(slow_gate(rng), np.zeros(DAYS, dtype=np.int8)) is None


def test_a_constant_gate_follows_nothing() -> None:
    found = follows_regime(np.full((DAYS, EXPERTS), 0.2), regimes(np.random.default_rng(0)))
    assert found is not None
    assert not found.found
    assert found.p_value == 1.0
