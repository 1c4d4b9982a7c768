"""Settings side by side: which are one policy, and differences from the reference day by day and seed by seed."""

from dataclasses import replace

import numpy as np
import pytest

from finflow.evaluation.backtest import Bootstrap
from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.result import Track
from finflow.evaluation.study import against_reference, over_seeds, same_as, seed_by_seed
from finflow.seeding import numpy_stream

FEW = Bootstrap(200, 5, 0)


def track(net: np.ndarray) -> Track:
    dates = np.datetime64("2020-01-01") + np.arange(len(net))
    none = np.zeros((len(net), 0))
    return Track("policy", dates, none, none, none[:, :0].sum(1), net, net, net, 0)


def drawn(seed: int, mean: float = 0.0) -> Track:
    """300 days of one Sharpe ratio, mean / 0.01 a day, whatever the seed."""
    net = numpy_stream(seed, "test").standard_normal(300)
    return track(mean + 0.01 * (net - net.mean()) / net.std(ddof=1))


def test_settings_with_the_same_returns_are_named_after_the_first() -> None:
    one, other = drawn(0), drawn(1)
    rounded = replace(one, net=one.net + 1e-12)
    away = replace(one, net=one.net + np.eye(1, 300)[0] * 1e-7)
    tracks = {"none": one, "alike": rounded, "other": other, "again": other, "away": away}
    assert same_as(tracks) == {"none": "", "alike": "none", "other": "", "again": "other", "away": ""}


def test_a_setting_is_compared_with_the_first_over_the_same_days() -> None:
    tracks = {"none": drawn(0, 0.001), "better": drawn(0, 0.002), "alike": drawn(0, 0.001)}
    assert against_reference("none", tracks, FEW) is None
    better, alike = (against_reference(name, tracks, FEW) for name in ("better", "alike"))
    assert better is not None
    assert better.opponent == "none"
    assert better.difference == pytest.approx(0.1 * 252**0.5)  # the daily ratio is 0.2 against 0.1
    assert better.low < better.difference < better.high
    assert alike is not None
    assert (alike.difference, alike.low, alike.high) == (0.0, 0.0, 0.0)


def test_seeds_are_paired() -> None:
    """Seeds that lie far apart, each a tenth better than the reference's: the pairs say so, the means do not."""
    means = {0: 0.0, 1: 0.002, 2: -0.001, 3: 0.004}
    reference = {seed: drawn(seed, mean) for seed, mean in means.items()}
    better = {seed: drawn(seed, mean + 0.001) for seed, mean in means.items()}
    paired = seed_by_seed(better, reference, FEW)
    assert paired == pytest.approx([0.1 * 252**0.5] * 3)
    (low, high), few = (over_seeds(each, FEW)[0] for each in (reference, better)), over_seeds(better, FEW)[1]
    assert few
    assert low is not None
    assert high is not None
    assert high[0] - low[0] == pytest.approx(0.1 * 252**0.5)
    assert high[1] < low[2]
    assert low[0] == pytest.approx(np.mean([(sharpe_ratio(reference[seed].net, 252) or 0) for seed in (0, 1)]))
    assert seed_by_seed(better, {seed: reference[seed] for seed in (0, 1, 2)}, FEW) is None
