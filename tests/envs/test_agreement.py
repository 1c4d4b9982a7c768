"""One portfolio, four ways to live it: simulator, Gymnasium face, world model, backtest."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from finflow.data.market import Market, Window
from finflow.envs.gym_env import EpisodeSource, PortfolioEnv
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import Simulator, Step
from finflow.evaluation.backtest import backtest

WINDOW = Window(301, 441)


@pytest.fixture(scope="module")
def open_market(lively: Market) -> Market:
    """A backtest decides on its first day whatever the calendar: here the calendar agrees."""
    decision = lively.decision.copy()
    decision[WINDOW.start - 1] = True
    return replace(lively, decision=decision)


@pytest.fixture(scope="module")
def scores(lively: Market) -> NDArray[np.float32]:
    rng = np.random.default_rng(11)
    return (rng.random((len(WINDOW), lively.n)) ** 4).astype(np.float32)


@pytest.fixture(scope="module")
def lived(open_market: Market, desk: Accounting, reward: RewardModel, scores: NDArray[np.float32]) -> list[Step]:
    simulator = Simulator(open_market, desk, reward)
    simulator.reset(np.arange(300, 440)[None])
    return [simulator.step(weights(score)[None]) for score in scores]


def weights(score: NDArray[np.float32]) -> NDArray[np.float64]:
    return score.astype(np.float64)


def test_the_gymnasium_face_to_the_bit(
    open_market: Market, desk: Accounting, reward: RewardModel, scores: Any, lived: list[Step]
) -> None:
    m = open_market
    env = PortfolioEnv(EpisodeSource(m, m.features, m.market_features, WINDOW, desk, reward, len(WINDOW)))
    env.reset(seed=0)
    for step, score in zip(lived, scores, strict=True):
        _, earned, terminated, truncated, info = env.step(score)
        for name in ("net", "gross", "cost", "turnover"):
            assert info[name] == getattr(step.booked, name)[0]
        assert earned == step.reward[0]
        assert_array_equal(info["executed"], step.executed[0])
        assert info["date"] == m.dates[step.row[0] + 1].astype(int)
        assert (terminated, truncated) == (False, step is lived[-1])


def test_the_backtest_to_the_bit(open_market: Market, desk: Accounting, scores: Any, lived: list[Step]) -> None:
    def strategy(rows: Any, drifted: Any, drawdown: Any) -> Any:
        del drifted, drawdown
        return weights(scores[rows[0] - 300])[None]

    def equal_weight(rows: Any, drifted: Any, drawdown: Any) -> Any:
        del rows, drawdown
        return np.full_like(drifted, 1 / drifted.shape[-1])

    track = backtest(open_market, WINDOW, desk, {"1/N": equal_weight, "policy": strategy})["policy"]
    for name in ("net", "gross", "cost", "turnover"):
        assert_array_equal(getattr(track, name), [getattr(s.booked, name)[0] for s in lived])
    assert_array_equal(track.weights, [s.executed[0] for s in lived])
    assert_array_equal(track.drifted, [s.before[0] for s in lived])
    assert_array_equal(track.dates, open_market.dates[301:441])
    assert track.closures == 1


def test_the_world_model_recomputes_what_was_lived(
    open_market: Market, desk: Accounting, reward: RewardModel, make_world: Any, scores: Any, lived: list[Step]
) -> None:
    world = make_world(open_market, desk)
    for step, following, score in zip(lived, lived[1:], scores, strict=False):
        row, before, drawdown = (torch.from_numpy(a) for a in (step.row, step.before, step.drawdown_before))
        state = world.observe(row, before, drawdown)
        executed = world.execute(torch.from_numpy(weights(score))[None], state)
        assert_allclose(executed.numpy(), step.executed, rtol=0, atol=1e-14)
        outcome = world.outcome(executed, state)
        assert_allclose(outcome.drifted.numpy(), following.before, rtol=0, atol=1e-14)
        assert_allclose(outcome.drawdown.numpy(), following.drawdown_before, rtol=0, atol=1e-13)
        assert_allclose(outcome.reward.numpy(), step.reward, rtol=1e-10, atol=1e-11)
        assert not outcome.ruined.any()


def test_the_world_model_finds_ruin(make_market: Any, reward: RewardModel, lively: Market, make_world: Any) -> None:
    returns = lively.returns.copy()
    returns[331, 0] = -1.0
    world = make_world(replace(lively, returns=returns), Accounting(0.001))
    held = torch.eye(lively.n).double()[[0, 0, 0]]
    held[2, [0, -1]] = torch.tensor([1 - 3e-16, 3e-16], dtype=torch.float64)
    state = world.observe(torch.tensor([330, 331, 330]), held, torch.zeros(3).double())
    outcome = world.outcome(state.drifted, state)
    assert outcome.ruined.tolist() == [True, False, True]
    assert torch.isfinite(outcome.reward).all()
    assert (outcome.drifted[0] == 0).all()
