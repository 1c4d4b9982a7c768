"""How much of a tilt is deployed: known answers of the shrinkage, and of the paired comparison behind selection."""

import json

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from finflow.evaluation.metrics import Confidence, confidence_of, paired_gain, shrinkage, t_statistic


@pytest.mark.parametrize(("t", "kappa"), [(None, 0.0), (-3.0, 0.0), (0.5, 0.0), (1.0, 0.0), (2.0, 0.75), (4.0, 0.9375)])
def test_shrinkage_by_hand(t: float | None, kappa: float) -> None:
    assert shrinkage(t) == kappa


def test_t_is_that_of_a_one_sample_test() -> None:
    active = np.random.default_rng(0).normal(1e-4, 1e-3, 700)
    assert t_statistic(active) == pytest.approx(ttest_1samp(active, 0.0).statistic)
    assert t_statistic(np.full(9, 0.1)) is None
    assert t_statistic(np.zeros(1)) is None


def test_where_nothing_is_known_little_is_deployed() -> None:
    """t is standard normal then: kappa passes .25 where t passes 1.155, on 12.4 % of the markets."""
    rng, found = np.random.default_rng(1), []
    for _ in range(2000):
        found.append(confidence_of("validation", {"validation": rng.normal(0, 1e-3, 250)}, 252).kappa)
    expected = norm.sf((1 / 0.75) ** 0.5)
    assert np.mean(np.array(found) > 0.25) == pytest.approx(expected, abs=3 * (expected * (1 - expected) / 2000) ** 0.5)
    assert np.mean(np.array(found) == 0) == pytest.approx(norm.cdf(1.0), abs=0.04)


def test_blocks_are_pooled_day_by_day() -> None:
    rng = np.random.default_rng(2)
    blocks = {"a": rng.normal(2e-4, 1e-3, 504), "b": rng.normal(-1e-4, 1e-3, 252)}
    found = confidence_of("crossfit", blocks, 252)
    whole = np.concatenate([blocks["a"], blocks["b"]])
    assert found.t == t_statistic(whole)
    assert found.active_return == pytest.approx(252 * whole.mean())
    assert found.years == 3
    assert found.parts == {"a": pytest.approx(252 * blocks["a"].mean()), "b": pytest.approx(252 * blocks["b"].mean())}
    assert Confidence.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_sentence_says_what_follows() -> None:
    found = Confidence("crossfit", 0.76, 2.04, 0.0123, 9.2, {})
    assert found.line() == (
        "deployed at 0.76 of its tilt (out of fold +1.2 % a year over the benchmark, t 2.0, over 9 years)"
    )
    none = Confidence("validation", 0.0, -0.3, -0.001, 3.0, {})
    assert none.line().startswith("abstains: holds the benchmark's portfolio (on validation days -0.1 % a year")


def test_paired_gain_by_hand_and_whatever_the_scale() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(0, 1e-3, 800)
    first, second = shared + rng.normal(0, 3e-4, 800), shared + rng.normal(1e-4, 3e-4, 800)
    a, b = second / second.std(ddof=1), first / first.std(ddof=1)
    by_hand = (a - b).mean() / ((a - b).std(ddof=1) / 800**0.5)
    assert paired_gain(second, first) == pytest.approx(by_hand)
    assert paired_gain(5 * second, first) == pytest.approx(by_hand)
    assert paired_gain(first, first) == 0.0
    assert paired_gain(first, 2 * first) == pytest.approx(0.0, abs=1e-9)
    assert paired_gain(np.zeros(800), np.zeros(800)) == 0.0
