"""Interquartile mean over seeds against scipy, and the interval against known cases."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import bootstrap, trim_mean

from finflow.evaluation.study import interquartile_mean, summarise_seeds
from finflow.seeding import numpy_stream


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 10, 11, 20])
def test_interquartile_mean_agrees_with_scipy(count: int) -> None:
    scores = numpy_stream(count, "test").standard_t(3, count)
    assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25), rtol=0, atol=1e-14)


def test_by_hand() -> None:
    assert interquartile_mean(np.array([100.0, 1, 2, 3, -50, 4, 5, 6])) == 3.5  # 2, 3, 4, 5 are left
    assert math.isnan(interquartile_mean(np.array([])))


def test_interval_agrees_with_scipys_percentiles() -> None:
    scores = numpy_stream(1, "test").standard_normal(12)
    found = summarise_seeds(scores, samples=20_000, rng=numpy_stream(0, "seeds"))
    oracle = bootstrap(
        (scores,),
        lambda x, axis: trim_mean(x, 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert_allclose([found.low, found.high], oracle, rtol=0, atol=0.03)
    assert found.low < found.middle < found.high


def test_interval_covers_the_truth_about_as_often_as_is_said() -> None:
    rng = numpy_stream(3, "test")
    cases = 600
    hits = 0
    for _ in range(cases):
        found = summarise_seeds(0.4 + 0.2 * rng.standard_normal(10), samples=300, rng=rng)
        hits += found.low <= 0.4 <= found.high
    assert 0.91 <= hits / cases <= 0.97


def test_fewer_than_ten_seeds_are_underpowered() -> None:
    scores = numpy_stream(4, "test").standard_normal(10)
    rng = numpy_stream(0, "seeds")
    assert not summarise_seeds(scores, samples=50, rng=rng).underpowered
    assert summarise_seeds(scores[:9], samples=50, rng=rng).underpowered
    single = summarise_seeds(scores[:1], samples=50, rng=rng)
    assert single.middle == scores[0]
    assert single.underpowered
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_an_undefined_score_is_never_trimmed_away() -> None:
    scores = numpy_stream(5, "test").standard_normal(10)
    scores[3] = math.nan
    found = summarise_seeds(scores, samples=50, rng=numpy_stream(0, "seeds"))
    assert math.isnan(found.middle)
    assert math.isnan(found.low)


def test_repeats_bit_for_bit() -> None:
    scores = numpy_stream(6, "test").standard_normal(10)
    one, two = (summarise_seeds(scores, samples=100, rng=numpy_stream(1, "seeds")) for _ in range(2))
    assert one == two
