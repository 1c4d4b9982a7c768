"""Which days episodes live through."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from finflow.data.market import REGIMES, TRADABLE, Market, Window
from finflow.envs.collect import (
    MEAN_BLOCK,
    SHORTEST,
    bootstrapped,
    bootstrapped_in_regime,
    historical,
    in_regime,
    labels,
    padded,
    starting_portfolios,
)
from finflow.errors import DataError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_history_is_consecutive_and_stays_in_its_window() -> None:
    window = Window(101, 161)
    found = historical(window, 50, 400, rng())
    assert all((np.diff(rows) == 1).all() and len(rows) == 50 for rows in found)
    starts = {int(rows[0]) for rows in found}
    assert starts == set(range(100, 111))  # every start, and the last decision is row 159: it earns row 160
    assert max(int(rows[-1]) for rows in found) == 159


def test_a_window_shorter_than_an_episode_is_lived_whole() -> None:
    assert_array_equal(historical(Window(5, 30), 252, 2, rng()), [np.arange(4, 29)] * 2)


def test_bootstrap_blocks_are_63_days_in_the_mean_and_wrap_inside_the_window() -> None:
    window = Window(101, 401)
    found = np.array(bootstrapped(window, 1000, 200, rng()))
    assert found.shape == (200, 1000)
    assert (found.min(), found.max()) == (100, 399)
    follows = found[:, 1:] == np.where(found[:, :-1] == 399, 100, found[:, :-1] + 1)
    blocks = 1 + (~follows).sum() / 200
    assert_allclose(1000 / blocks, MEAN_BLOCK, rtol=0.06)
    counts = np.bincount(found.ravel() - 100, minlength=300)
    assert counts.min() > 0.6 * counts.mean()  # every day of the window is lived about equally often
    assert (found[:, 0] != 100).any()


def test_bootstrap_block_lengths_are_geometric() -> None:
    found = np.array(bootstrapped(Window(1, 100_001), 2000, 200, rng(1)))
    lengths = np.concatenate([np.diff(np.flatnonzero(np.diff(rows, prepend=-9) != 1)) for rows in found])
    assert_allclose((lengths == 1).mean(), 1 / MEAN_BLOCK, rtol=0, atol=0.006)
    assert_allclose((lengths > MEAN_BLOCK).mean(), (1 - 1 / MEAN_BLOCK) ** MEAN_BLOCK, rtol=0, atol=0.04)


@pytest.mark.parametrize("regime", ["stable", "normal", "volatile"])
def test_every_day_of_a_regime_episode_carries_its_label(lively: Market, regime: str) -> None:
    window = Window(31, 596)
    for days in (25, 40, 252):
        for rows in in_regime(lively, window, regime, days, 200, rng()):
            assert (labels(lively)[rows] == REGIMES.index(regime)).all()
            assert (np.diff(rows) == 1).all()
            assert SHORTEST <= len(rows) <= days
            assert window.decisions.start <= rows[0]
            assert rows[-1] < window.decisions.stop
            after = int(rows[-1]) + 1
            ended = after == window.decisions.stop or labels(lively)[after] != REGIMES.index(regime)
            assert ended or len(rows) == days


def test_regime_episodes_start_anywhere_from_which_21_days_are_left(lively: Market) -> None:
    starts = {int(rows[0]) for rows in in_regime(lively, Window(101, 501), "volatile", 252, 5000, rng())}
    assert starts == {*range(150, 160), *range(300, 380)}  # stretches 150-179 and 300-399


def test_days_before_the_first_label_are_normal(lively: Market) -> None:
    assert (lively.regime[:50] == -1).all()
    starts = {int(rows[0]) for rows in in_regime(lively, Window(1, 100), "normal", 21, 2000, rng())}
    assert min(starts) == 0


def test_a_regime_without_a_stretch_is_refused(lively: Market) -> None:
    with pytest.raises(DataError, match=r"^market_regime=crisis: .*21 days.*; .+$") as caught:
        in_regime(lively, Window(31, 596), "crisis", 252, 5, rng())  # fifteen days of it
    assert "\n" not in str(caught.value)
    exactly = replace(lively, regime=np.where(np.arange(600) // 21 == 5, 3, 0).astype(np.int8))
    assert_array_equal(in_regime(exactly, Window(31, 596), "crisis", 252, 1, rng())[0], np.arange(105, 126))


def test_a_stretch_is_cut_at_the_ends_of_the_window(lively: Market) -> None:
    same = replace(lively, regime=np.zeros(600, dtype=np.int8))
    found = in_regime(same, Window(101, 161), "stable", 252, 500, rng())
    assert {int(rows[-1]) for rows in found} == {159}
    assert {int(rows[0]) for rows in found} == set(range(100, 140))


@pytest.mark.parametrize(
    "draw",
    [
        lambda m, g: historical(Window(101, 501), 60, 20, g),
        lambda m, g: bootstrapped(Window(101, 501), 60, 20, g),
        lambda m, g: in_regime(m, Window(101, 501), "volatile", 60, 20, g),
    ],
)
def test_the_same_generator_draws_the_same_days(draw: Any, lively: Market) -> None:
    first, again, other = (padded(draw(lively, rng(seed))) for seed in (3, 3, 4))
    assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_padding() -> None:
    assert padded([np.array([4, 5, 6]), np.array([9])]).tolist() == [[4, 5, 6], [9, -1, -1]]


def test_starts_are_cash_equal_weight_or_a_prior_a_third_each(lively: Market, priors: NDArray[np.float64]) -> None:
    episodes = historical(Window(101, 501), 30, 3000, rng())
    first = np.array([rows[0] for rows in episodes])
    rounded = priors.astype(np.float32).astype(np.float64)
    found = starting_portfolios(lively, rounded, episodes, rng())
    assert_allclose(found.sum(1), 1.0, rtol=0, atol=1e-15)
    assert (found >= 0).all()
    tradable = lively.status[first] == TRADABLE
    assert (found[~tradable] == 0).all()
    cash = found[:, -1] == 1.0
    names = tradable[:, :-1].sum(1)
    equal = (abs(found[:, :-1] * names[:, None] - tradable[:, :-1]) < 1e-12).all(1)
    prior = (abs(found[:, None] - priors[first]) < 1e-6).all(-1).any(1)
    assert (cash.astype(int) + equal + prior == 1).all()
    assert_allclose([cash.mean(), equal.mean(), prior.mean()], 1 / 3, rtol=0, atol=0.03)
    assert_array_equal(found, starting_portfolios(lively, rounded, episodes, rng()))


@pytest.mark.parametrize("regime", ["stable", "volatile"])
def test_resampled_regime_episodes_are_full_length_and_of_one_label(lively: Market, regime: str) -> None:
    window = Window(31, 596)
    found = bootstrapped_in_regime(lively, window, regime, 252, 100, rng())
    assert all(len(rows) == 252 for rows in found)
    lived = np.concatenate(found)
    assert (labels(lively)[lived] == REGIMES.index(regime)).all()
    assert lived.min() >= window.decisions.start
    assert lived.max() < window.decisions.stop
    follows = np.concatenate([np.diff(rows) == 1 for rows in found])
    assert 0.8 < follows.mean() < 1.0  # blocks, not single days, and more than one of them
