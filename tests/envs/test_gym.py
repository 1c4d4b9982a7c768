"""The Gymnasium faces: the checker, spaces, seeds, and a vector env that equals many single ones."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_match import check_environments_match
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.testing import assert_allclose, assert_array_equal

from finflow.data.market import Market, Window
from finflow.envs.gym_env import EpisodeSource, PortfolioEnv, PortfolioVectorEnv
from finflow.envs.ledger import Accounting, RewardModel
from finflow.errors import DataError

Make = Callable[..., Any]


TRAIN, PERILS = Window(101, 501), Window(11, 290)
FREE = Accounting(0.001)


@pytest.fixture
def single(lively: Market, desk: Accounting, reward: RewardModel) -> Make:
    def make(
        days: int = 7, market: Market = lively, window: Window = TRAIN, accounting: Accounting = desk
    ) -> PortfolioEnv:
        source = EpisodeSource(market, market.features, market.market_features, window, accounting, reward, days)
        return PortfolioEnv(source)

    return make


@pytest.fixture
def several(lively: Market, desk: Accounting, reward: RewardModel) -> Make:
    def make(
        count: int, days: int = 7, market: Market = lively, window: Window = TRAIN, accounting: Accounting = desk
    ) -> PortfolioVectorEnv:
        features = market.features, market.market_features
        return PortfolioVectorEnv(EpisodeSource(market, *features, window, accounting, reward, days), count)

    return make


@pytest.fixture(scope="module")
def dangerous(make_market: Any) -> Market:
    """A market where one name falls to nothing now and then: who is all in is ruined."""
    rng = np.random.default_rng(0)
    risky = rng.normal(0, 0.01, (300, 2))
    risky[5::9, 0] = -1.0
    return make_market(risky, benchmark=np.zeros(300), features=rng.normal(size=(300, 2, 2)).astype(np.float32))


def test_gymnasiums_checker_has_nothing_to_say(single: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # An observation has no bounds of its own, and the environment is made from a configuration, not from an id.
        warnings.filterwarnings("ignore", ".*Box observation space (minimum|maximum) value is -?infinity.*")
        warnings.filterwarnings("ignore", ".*(spec|env.spec).*")
        check_env(single(), skip_render_check=True)


def test_two_environments_match(single: Make) -> None:
    check_environments_match(single(), single(), num_steps=60, seed=3)


def test_what_is_observed(single: Make, lively: Market) -> None:
    env = single()
    first, info = env.reset(seed=1)
    assert info == {}
    assert first.shape == (20 * 2 + 3 + 21 + 2,)
    found, _, _, _, info = env.step(env.action_space.sample())
    row = int(np.flatnonzero(lively.dates.astype(int) == info["date"])[0])
    assert_array_equal(found[:40], lively.features[row].ravel())
    assert_array_equal(found[40:43], lively.market_features[row])
    growth = info["executed"] * (1 + lively.returns[row])
    assert_allclose(found[43:64], growth / growth.sum(), rtol=0, atol=1e-6)
    assert_allclose(found[64], max(0.0, -np.log(info["nav"])), rtol=0, atol=1e-6)
    assert found[65] == float(lively.decision[row])


def test_a_full_episode(single: Make) -> None:
    env = single(30)
    env.reset(seed=0)
    nav, done = 1.0, []
    for _ in range(30):
        _, earned, terminated, truncated, info = env.step(env.action_space.sample())
        nav *= 1 + info["net"]
        done.append(truncated)
        assert not terminated
        assert_allclose(info["nav"], nav, rtol=1e-12)
        assert_allclose(sum(v for k, v in info.items() if k.startswith("reward_")), earned, rtol=1e-12)
        assert_allclose((1 + info["gross"]) * (1 - info["cost"]) - 1, info["net"], rtol=0, atol=1e-14)
    assert done == [False] * 29 + [True]


def test_episodes_stay_inside_the_window_and_start_all_over_it(single: Make, lively: Market) -> None:
    env = single(7, window=Window(101, 121))
    starts = set()
    for seed in range(150):
        env.reset(seed=seed)
        dates = [int(env.step(env.action_space.sample())[-1]["date"]) for _ in range(7)]
        rows = np.searchsorted(lively.dates.astype(int), dates)
        assert (np.diff(rows) == 1).all()
        assert rows[0] >= 101
        assert rows[-1] <= 120
        starts.add(int(rows[0]))
    assert starts == set(range(101, 115))


def test_scores_are_normalised_and_zeros_are_cash(single: Make, several: Make) -> None:
    score = np.linspace(0, 0.5, 21, dtype=np.float32)

    def executed(action: Any) -> Any:
        env = single()
        env.reset(seed=4)
        return env.step(action)[-1]["executed"]

    assert executed(score)[-1] < 1  # a day of decision
    assert_array_equal(executed(2 * score), executed(score))
    assert_array_equal(executed(score - 0.1), executed(np.maximum(score - 0.1, 0)))
    assert_array_equal(executed(0 * score), np.eye(21)[-1])
    crowd = several(2)
    crowd.reset(seed=[4, 4])
    assert_array_equal(crowd.step(np.stack([0 * score, score]))[-1]["executed"], [executed(0 * score), executed(score)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(bad: float, single: Make) -> None:
    env = single()
    env.reset(seed=0)
    with pytest.raises(DataError, match=r"action: .*not finite.*; "):
        env.step(np.full(21, bad, dtype=np.float32))


@pytest.mark.parametrize("bad", [np.ones(20), np.ones((1, 21)), 1.0, None, "buy", np.array([None] * 21)])
def test_an_action_of_another_shape_is_refused(bad: Any, single: Make, several: Make) -> None:
    env, crowd = single(), several(3)
    env.reset(seed=0)
    crowd.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action: .*; should be numbers of shape \(21,\), "):
        env.step(bad)
    for wrong in (bad, np.ones(21)):
        with pytest.raises(ValueError, match=r"^action: .*; should be numbers of shape \(3, 21\), "):
            crowd.step(wrong)
    first = env.step([0.5] * 21)[0]  # pyright: ignore[reportArgumentType]
    env.reset(seed=0)
    assert_array_equal(first, env.step(np.full(21, 0.5))[0])  # pyright: ignore[reportArgumentType]


def test_ruin_terminates_and_shows_the_day_after(single: Make, dangerous: Market) -> None:
    env = single(60, dangerous, PERILS, FREE)
    env.reset(seed=0)
    while True:
        found, earned, terminated, truncated, info = env.step(np.array([1.0, 0.0, 0.0], dtype=np.float32))
        assert not truncated
        if terminated:
            break
    row = int(np.flatnonzero(dangerous.dates.astype(int) == info["date"])[0])
    assert dangerous.returns[row, 0] == -1.0
    assert info["nav"] == 0.0
    assert np.isfinite(earned)
    assert_array_equal(found[:4], dangerous.features[row].ravel())


def equal(found: Any, wanted: Any) -> None:
    """Two results of a vector env, infos included; where a mask is False nothing is said."""
    for one, other in zip(found[:-1], wanted[:-1], strict=True):
        assert one.dtype == other.dtype
        assert_array_equal(one, other)
    assert found[-1].keys() == wanted[-1].keys()
    for name, values in wanted[-1].items():
        assert_array_equal(found[-1][name], values)
        assert found[-1][name].dtype == values.dtype


@pytest.mark.parametrize("seed", [5, [9, 2, 4, 2]])
@pytest.mark.parametrize("ruin", [False, True])
def test_the_vector_env_is_many_single_ones(
    seed: Any, ruin: bool, single: Make, several: Make, lively: Market, dangerous: Market
) -> None:
    setting = (12, dangerous, PERILS, FREE) if ruin else (12, lively)
    mine = several(4, *setting)
    reference = SyncVectorEnv([lambda: single(*setting)] * 4, autoreset_mode=AutoresetMode.NEXT_STEP)
    assert mine.observation_space == reference.observation_space
    assert mine.action_space == reference.action_space
    assert mine.single_observation_space == reference.single_observation_space
    assert mine.single_action_space == reference.single_action_space
    assert mine.metadata["autoreset_mode"] == reference.metadata["autoreset_mode"]
    equal(mine.reset(seed=seed), reference.reset(seed=seed))
    reference.action_space.seed(0)
    finished: set[tuple[bool, bool]] = set()
    for day in range(90):
        actions = reference.action_space.sample()
        actions[0] = np.eye(actions.shape[1], dtype=np.float32)[0]
        result = mine.step(actions)
        equal(result, reference.step(actions))
        finished |= {(bool(a), bool(b)) for a, b in zip(result[2], result[3], strict=True)}
        assert mine.observation_space.contains(result[0])
        if day == 60:
            equal(mine.reset(), reference.reset())  # goes on with its own random streams
    assert finished == ({(False, False), (True, False), (False, True)} if ruin else {(False, False), (False, True)})


def test_seeds_are_reproducible_and_differ(several: Make) -> None:
    first, again, other = (several(8).reset(seed=seed)[0] for seed in (1, 1, 20))
    assert_array_equal(first, again)
    assert (first != other).any()
    assert len({row.tobytes() for row in first}) > 4  # the portfolios live through different days
    free = [several(8).reset()[0] for _ in range(2)]
    assert (free[0] != free[1]).any()


def test_a_list_of_seeds_of_another_length_is_refused(several: Make) -> None:
    with pytest.raises(ValueError):
        several(3).reset(seed=[1, 2])


def test_what_was_returned_is_not_written_to_later(several: Make) -> None:
    env = several(3, 4)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    results = [env.step(rng.random((3, 21)).astype(np.float32)) for _ in range(3)]
    kept = [[np.copy(a) for a in (*r[:4], *r[4].values())] for r in results]
    for _ in range(10):
        env.step(rng.random((3, 21)).astype(np.float32))
    for result, copies in zip(results, kept, strict=True):
        for array, copy in zip((*result[:4], *result[4].values()), copies, strict=True):
            assert_array_equal(array, copy)


def test_what_a_step_handed_out_stays_as_it_was(several: Make) -> None:
    """Fresh episodes and later steps write into no array that the caller may have kept."""
    env = several(3, days=3)
    env.reset(seed=0)
    scores = np.random.default_rng(0).random((9, 3, env.single_action_space.shape[0]), dtype=np.float32)
    handed, copies = [], []
    for score in scores:
        found, reward, _, _, info = env.step(score)
        arrays = [found, reward, *info.values()]
        handed += arrays
        copies += [array.copy() for array in arrays]
    env.reset(seed=1)
    for array, copy in zip(handed, copies, strict=True):
        assert_array_equal(array, copy)
