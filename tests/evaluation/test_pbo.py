"""Probability of backtest overfitting: cases by hand, a slow recomputation, and what luck and skill give."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import rankdata

from finflow.evaluation.selection_bias import backtest_overfitting, split_logits
from finflow.seeding import numpy_stream


def slow(active: np.ndarray, blocks: int) -> tuple[float, list[float]]:
    """Bailey et al., section 3, word by word."""
    rows = np.array_split(np.arange(len(active))[len(active) % blocks :], blocks)
    logits = []
    for taken in itertools.combinations(range(blocks), blocks // 2):
        train = active[np.concatenate([rows[b] for b in taken])]
        test = active[np.concatenate([rows[b] for b in range(blocks) if b not in taken])]
        inside = train.mean(0) / train.std(0, ddof=1)
        outside = test.mean(0) / test.std(0, ddof=1)
        best = int(np.argmax(inside))
        relative = rankdata(outside)[best] / (active.shape[1] + 1)
        logits.append(math.log(relative / (1 - relative)))
    return float(np.mean(np.array(logits) <= 0)), logits


@pytest.mark.parametrize(("days", "trials", "blocks"), [(97, 7, 6), (64, 4, 8), (50, 2, 2)])
def test_agrees_with_a_slow_recomputation(days: int, trials: int, blocks: int) -> None:
    active = 0.01 * numpy_stream(days, "test").standard_normal((days, trials)) + np.linspace(0, 0.002, trials)
    probability, logits = slow(active, blocks)
    assert_allclose(split_logits(active, blocks), logits, rtol=0, atol=1e-12)
    assert backtest_overfitting(active, blocks) == probability


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    active = 0.01 * numpy_stream(1, "test").standard_normal((80, 5))
    whole = split_logits(active, 8)
    monkeypatch.setattr("finflow.evaluation.selection_bias.CHUNK", 9)
    assert_allclose(split_logits(active, 8), whole, rtol=0, atol=0)


def test_by_hand() -> None:
    good, bad = [0.01, 0.03], [-0.03, -0.01]  # Sharpe ratios of + and - the same size
    # Whoever wins the first half loses the second: relative rank 1/3 both times.
    fickle = np.column_stack([good + bad, bad + good])
    assert_allclose(split_logits(fickle, 2), [math.log(0.5)] * 2, rtol=0, atol=1e-12)
    assert backtest_overfitting(fickle, 2) == 1.0
    # One always wins: 2/3.
    steady = np.column_stack([good + good, bad + bad])
    assert_allclose(split_logits(steady, 2), [math.log(2.0)] * 2, rtol=0, atol=1e-12)
    assert backtest_overfitting(steady, 2) == 0.0
    # Three trials, four blocks, six splits. Column 0 beats column 1 in blocks 0 and 1 alone; column 2 is worst but in
    # no split can it matter: its rank never crosses theirs.
    blocks = {"+": good, "0": [-0.01, 0.02], "-": bad}
    mixed = np.column_stack(
        [sum((blocks[b] for b in column), []) for column in ("++00", "00++", "----")]  # noqa: RUF017
    )
    # Splits by blocks taken: {0,1} picks column 0, second of three in {2,3}: w = 2/4; {2,3} picks column 1, likewise.
    # The four others hold one + and one 0 for both columns, a tie: the first is picked and shares ranks 2 and 3:
    # w = 2.5/4, logit ln(2.5 / 1.5).
    tie = math.log(2.5 / 1.5)
    assert_allclose(split_logits(mixed, 4), [0.0, tie, tie, tie, tie, 0.0], rtol=0, atol=1e-12)
    assert backtest_overfitting(mixed, 4) == pytest.approx(2 / 6)


def test_luck_alone_gives_one_half_and_skill_none() -> None:
    rng = numpy_stream(2, "test")
    # Days are exchangeable, so the rank in the other half is uniform: one half exactly, for an even number of trials.
    luck = [backtest_overfitting(0.01 * rng.standard_normal((160, 20)), 8) for _ in range(200)]
    assert abs(np.mean(luck) - 0.5) < 3 * np.std(luck) / math.sqrt(len(luck))
    assert np.std(luck) / math.sqrt(len(luck)) < 0.02
    skilled = 0.01 * rng.standard_normal((756, 20))
    skilled[:, 13] += 0.003  # 4.8 a year
    assert len(split_logits(skilled)) == math.comb(16, 8)
    assert backtest_overfitting(skilled) < 0.01


def test_trials_on_the_benchmark_are_left_out_and_half_idle_ones_rank_last() -> None:
    active = 0.01 * numpy_stream(3, "test").standard_normal((80, 4))
    with_idle = np.insert(active, 1, 0.0, axis=1)
    assert_allclose(split_logits(with_idle, 4), split_logits(active, 4), rtol=0, atol=0)
    late = np.column_stack([np.r_[np.zeros(40), np.tile([0.02, 0.03], 20)], np.tile([-0.02, 0.01], 40)])
    # idle in the first half, where the loser is therefore picked
    assert_allclose(split_logits(late, 2), [math.log(0.5), math.log(0.5)], rtol=0, atol=1e-12)


def test_too_little_to_compare() -> None:
    active = 0.01 * numpy_stream(4, "test").standard_normal((80, 4))
    for few in (active[:, :1], active[:31], active[:3]):
        assert math.isnan(backtest_overfitting(few))
        assert len(split_logits(few)) == 0
    for blocks in (0, 5):
        with pytest.raises(ValueError, match=f"blocks={blocks}"):
            backtest_overfitting(active, blocks)
