"""What strategies from outside see, and that a model lives through the ledger what it lives through in `make_env`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finflow
from finflow.data.build import build_market
from finflow.data.features import FeatureScaling
from finflow.data.market import Fold, Market, Window, make_fold
from finflow.envs.gym_env import Observations
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Task
from finflow.evaluation.strategies import History, outsider
from finflow.seeding import numpy_stream

FOLD = Fold("auto", Window(60, 90), Window(95, 110), Window(120, 160))
CHANGED = 140


@pytest.fixture
def market(make_market) -> Market:
    return make_market(numpy_stream(0, "strategies test").normal(3e-4, 0.01, (160, 3)))


def followed(market: Market, strategy: Any) -> np.ndarray:
    """Net returns of a function over the test window."""
    observations = Observations(market, market.features, market.market_features)
    return Task(market, FOLD, Accounting(0.001)).track(FOLD.test, outsider(strategy, market, observations).act).net


def seen(history: History) -> bytes:
    arrays = (history.dates, history.close, history.returns, history.tradable, history.held, history.observation)
    return b"".join(array.tobytes() for array in arrays) + str(history.drawdown).encode()


def momentum(history: History) -> np.ndarray:
    return np.eye(4)[int(np.argmax(history.close[-1] / history.close[-20]))]


def test_nothing_after_the_decision_reaches_a_strategy(market: Market) -> None:
    later = np.arange(160) > CHANGED
    other = replace(
        market,
        close=np.where(later[:, None], 7.0, market.close),
        returns=np.where(later[:, None], 0.5, market.returns),
        features=np.where(later[:, None, None], np.float32(9), market.features),
        dates=np.where(later, market.dates + 1000, market.dates),
    )
    met: dict[int, list[bytes]] = {0: [], 1: []}
    for key, one in enumerate((market, other)):

        def noting(history: History, key: int = key, one: Market = one) -> np.ndarray:
            for name in ("close", "returns", "dates"):
                array = getattr(history, name)
                assert len(array) == len(history.dates)
                assert array.base is None  # a view would lead to the days that follow
                assert not np.shares_memory(array, getattr(one, name))
            met[key].append(seen(history))
            return momentum(history)

        followed(one, noting)
    decisions = CHANGED - FOLD.test.decisions.start + 1
    assert met[0][:decisions] == met[1][:decisions]
    assert met[0][decisions] != met[1][decisions]


def test_a_strategy_cannot_change_the_market(market: Market) -> None:
    def writing(history: History) -> np.ndarray:
        chosen = momentum(history)
        for array in (history.close, history.returns, history.held, history.observation, history.tradable):
            array[:] = 0
        return chosen

    expected = followed(market, momentum)
    np.testing.assert_array_equal(followed(market, writing), expected)


class Linear:
    """Scores from the whole observation, negative ones among them."""

    def __init__(self, size: int, n: int) -> None:
        self.weights = numpy_stream(1, "strategies test").normal(0, 1 / np.sqrt(size), (size, n))

    def predict(self, observation: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        assert deterministic
        return (observation @ self.weights).astype(np.float32), None


def test_a_model_earns_what_it_earns_in_its_environment(tmp_path: Path) -> None:
    words = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=3", "env.episode_days=1000"]
    config = finflow.load("judge", [*words, f"output_root='{tmp_path}'"])
    env = finflow.make_env(config, "validation")
    assert env.observation_space.shape is not None
    model = Linear(env.observation_space.shape[0], 4)
    observation, _ = env.reset(seed=0)
    lived, done = [], False
    while not done:
        observation, _, terminated, truncated, info = env.step(model.predict(observation, deterministic=True)[0])
        lived.append(info["net"])
        done = terminated or truncated
    market = build_market(config.env, tmp_path / "cache")
    fold = make_fold(market, config.env, config.fold)
    observations = Observations(market, *FeatureScaling.fit(market, fold).apply(market))
    policy = outsider(model, market, observations)
    track = Task(market, fold, Accounting.of(config.env)).track(fold.validation, policy.act)
    assert len(lived) == len(fold.validation)
    held = np.full((1, 4), 0.25)
    asked = policy.act(np.array([fold.validation.start]), held, np.zeros(1))
    assert asked.sum() == pytest.approx(1.0)  # weights, not scores: a lagged trade is a difference of the two
    np.testing.assert_allclose(track.net, lived, rtol=0, atol=1e-12)
    assert np.ptp(track.weights, axis=0).max() > 0.1
