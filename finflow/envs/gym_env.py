"""Gymnasium environments over the simulator, for learners from other libraries."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from finflow.data.market import Market, Window
from finflow.envs.collect import drawn
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import Simulator, Step
from finflow.errors import DataError

Obs = NDArray[np.float32]


class Observations:
    """What a portfolio sees at each close of a market, [d F + M + n + 2]: features, market features, weights held, its
    own log drawdown, whether the close decides.

    Parameters
    ----------
    features, market_features : [T, d, F] and [T, M], scaled.
    """

    def __init__(self, market: Market, features: NDArray[np.float32], market_features: NDArray[np.float32]) -> None:
        days = len(market.dates)
        known, own = features[0].size + market_features.shape[1], market.n + 2
        # What every portfolio sees of a day, with room for what it alone sees: an observation is one row copied.
        self._table = np.zeros((days, known + own), dtype=np.float32)
        self._table[:, :known] = np.concatenate([features.reshape(days, -1), market_features], axis=1)
        self._table[:, -1] = market.decision
        self._held = slice(known, known + market.n)
        self.space = gymnasium.spaces.Box(-np.inf, np.inf, (known + own,), np.float32)

    def at(self, rows: NDArray[np.int64], drifted: NDArray[np.float64], drawdown: NDArray[np.float64]) -> Obs:
        """Observations at `rows` [E] of portfolios that hold `drifted` [E, n] in a `drawdown` [E]."""
        found = self._table.take(rows, axis=0)
        found[:, self._held] = drifted
        found[:, -2] = drawdown
        return found


@dataclass(frozen=True)
class EpisodeSource:
    """A market under rules and a reward, and the window that episodes are drawn from.

    features, market_features : [T, d, F] and [T, M], scaled. An episode is `episode_days` consecutive decisions of
    `window`.
    """

    market: Market
    features: NDArray[np.float32]
    market_features: NDArray[np.float32]
    window: Window
    accounting: Accounting
    reward: RewardModel
    episode_days: int


class _Core:
    """E episodes drawn from a window: observations, spaces and actions that both environments share."""

    def __init__(self, source: EpisodeSource, count: int) -> None:
        market, self._window = source.market, source.window
        self._observations = Observations(market, source.features, source.market_features)
        self._dates = market.dates.astype(np.int64)[1:]
        self._days, self.count = min(source.episode_days, len(source.window)), count
        self.simulator = Simulator(market, source.accounting, source.reward)
        self.simulator.reset(np.full((count, self._days), -1, dtype=np.int64))
        self.observation_space = self._observations.space
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (market.n,), np.float32)

    def draw(self, slots: list[int], streams: list[np.random.Generator]) -> None:
        """Start a fresh episode in each of the slots, in cash, each drawn from its own stream."""
        self.simulator.restart_all(slots, drawn(self._window, self._days, streams))

    def observe(self) -> Obs:
        """[E, d F + M + n + 2], see `Observations`."""
        return self._observations.at(self.simulator.row, self.simulator.drifted, self.simulator.drawdown)

    def step(self, action: NDArray[np.floating[Any]]) -> Step:
        """Book scores [E, n], which the ledger normalises; negative scores count as 0, all zeros is all cash."""
        # One product finds a score that is not finite; only if it overflows are scores checked one by one.
        if not isfinite(np.vdot(action, action)) and not np.isfinite(action).all():
            raise DataError("action: a score is not finite; the learner may have diverged, return finite numbers")
        return self.simulator.step(np.maximum(action, 0.0))

    def facts(self, step: Step) -> dict[str, NDArray[Any]]:
        """The ledger's figures of the day, each [E] (executed [E, n])."""
        booked = step.booked
        return {
            "date": self._dates.take(step.row, mode="clip"),
            "net": booked.net,
            "gross": booked.gross,
            "cost": booked.cost,
            "turnover": booked.turnover,
            "nav": self.simulator.nav,
            "executed": step.executed,
            **{f"reward_{name}": term for name, term in step.components.items()},
        }


def _scores(action: object, space: gymnasium.Space[Any]) -> NDArray[np.floating[Any]]:
    """An action as an array of numbers of the space's shape; a `ValueError` if it is none."""
    scores = np.asarray(action)
    if scores.shape != space.shape or scores.dtype.kind not in "fiub":
        found = f"{scores.dtype} of shape {scores.shape}"
        raise ValueError(f"action: {found}; should be numbers of shape {space.shape}, the last one cash's")
    return scores


class PortfolioEnv(gymnasium.Env[Obs, NDArray[np.float32]]):
    """One portfolio through stretches of a window.

    Observation [d F + M + n + 2]; action: n non-negative scores, normalised to weights (cash last); reward: see
    `envs/simulator.py`; a time limit truncates, only ruin terminates. `info` holds the ledger's figures of the day, its
    date as days since 1970-01-01.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, source: EpisodeSource) -> None:
        self._core = _Core(source, 1)
        self.observation_space = self._core.observation_space
        self.action_space = self._core.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Start an episode at a random day of the window, in cash."""
        super().reset(seed=seed)
        self._core.draw([0], [self.np_random])
        return self._core.observe()[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Decide, book the day, move on."""
        step = self._core.step(_scores(action, self.action_space)[None])
        info = {name: values[0] for name, values in self._core.facts(step).items()}
        done = bool(step.terminated[0]), bool(step.truncated[0])
        return self._core.observe()[0], float(step.reward[0]), *done, info


class PortfolioVectorEnv(VectorEnv[Obs, NDArray[np.float32], NDArray[Any]]):
    """E portfolios side by side in one simulator; a finished one is reset by the step that follows (next-step).

    It equals Gymnasium's `SyncVectorEnv` over E `PortfolioEnv`s, seeds included, and is many times faster.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, source: EpisodeSource, num_envs: int) -> None:
        self._core = _Core(source, num_envs)
        self.num_envs = num_envs
        self.single_observation_space = self._core.observation_space
        self.single_action_space = self._core.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._draws = [np.random.default_rng() for _ in range(num_envs)]
        self._done = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start all episodes; portfolio i draws its days from `seed + i`, or from entry i of a list."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        for slot, own in zip(range(self.num_envs), seeds, strict=True):
            if own is not None:
                self._draws[slot] = seeding.np_random(own)[0]
        self._core.draw(list(range(self.num_envs)), self._draws)
        self._done[:] = False
        return self._core.observe(), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Obs, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every portfolio; those that had finished start anew instead, with reward 0."""
        fresh = self._done
        step = self._core.step(_scores(actions, self.action_space))
        reward, terminated, truncated = step.reward, step.terminated, step.truncated
        info = self._core.facts(step)
        if np.count_nonzero(fresh):
            slots = np.flatnonzero(fresh).tolist()
            self._core.draw(slots, [self._draws[slot] for slot in slots])
            reward, terminated, truncated = np.where(fresh, 0.0, reward), terminated & ~fresh, truncated & ~fresh
            kept = {} if fresh.all() else info
            info = {name: np.where(fresh.reshape(-1, *[1] * (v.ndim - 1)), 0, v) for name, v in kept.items()}
        self._done, lived = terminated | truncated, ~fresh
        for name in list(info):
            info[f"_{name}"] = lived
        return self._core.observe(), reward, terminated, truncated, info
