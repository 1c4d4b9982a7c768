"""Learners of other libraries, through their public API: same sizes, random transitions."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from benchmarks.sizes import ACTION, ATOMS, BATCH, CQL_ACTIONS, HIDDEN, MEMORY, STATE
from benchmarks.worker import Burst

torch.set_num_threads(1)


class _Nothing(gymnasium.Env[Any, Any]):
    """Spaces alone; nobody steps it."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (STATE,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        return np.zeros(STATE, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action
        return np.zeros(STATE, np.float32), 0.0, False, False, {}


def _transitions() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((MEMORY, STATE), dtype=np.float32)
    return states, rng.uniform(-1, 1, (MEMORY, ACTION)).astype(np.float32), rng.standard_normal((MEMORY, 1))


def _d3rlpy(algo: Any) -> Burst:
    from d3rlpy.dataset import MDPDataset

    states, actions, rewards = _transitions()
    ends = (np.arange(MEMORY) % 200 == 199).astype(np.float32)
    data = MDPDataset(states, actions, rewards.astype(np.float32), np.zeros(MEMORY, np.float32), ends)
    algo.build_with_dataset(data)
    fixed = data.sample_transition_batch(BATCH)

    def burst(updates: int) -> None:
        for _ in range(updates):
            algo.update(fixed)

    return burst


def d3rlpy_iql() -> Burst:
    from d3rlpy.algos import IQLConfig

    return _d3rlpy(IQLConfig(batch_size=BATCH).create(device="cpu"))


def d3rlpy_cql() -> Burst:
    from d3rlpy.algos import CQLConfig

    return _d3rlpy(CQLConfig(batch_size=BATCH, n_action_samples=CQL_ACTIONS).create(device="cpu"))


def _sb3(learner: Any, **options: Any) -> Burst:
    from stable_baselines3.common.logger import Logger

    model = learner("MlpPolicy", _Nothing(), buffer_size=MEMORY, batch_size=BATCH, device="cpu", seed=0, **options)
    model.set_logger(Logger(None, []))
    states, actions, rewards = _transitions()
    for i in range(MEMORY - 1):
        model.replay_buffer.add(states[i], states[i + 1], actions[i], rewards[i], np.zeros(1), [{}])
    return lambda updates: model.train(gradient_steps=updates, batch_size=BATCH)


def sb3_sac() -> Burst:
    from stable_baselines3 import SAC

    return _sb3(SAC, policy_kwargs={"net_arch": [HIDDEN, HIDDEN]})


def sb3_tqc() -> Burst:
    from sb3_contrib import TQC

    shape = {"net_arch": [HIDDEN, HIDDEN], "n_quantiles": ATOMS, "n_critics": 2}
    return _sb3(TQC, top_quantiles_to_drop_per_net=0, policy_kwargs=shape)


def sbx_tqc() -> Burst:
    """JAX compiles its loop for one length: bursts are whole multiples of 10 updates."""
    from sbx import TQC

    shape = {"net_arch": [HIDDEN, HIDDEN], "n_quantiles": ATOMS}
    train = _sb3(TQC, top_quantiles_to_drop_per_net=0, policy_kwargs=shape)

    def burst(updates: int) -> None:
        for _ in range(updates // 10):
            train(10)

    return burst


CONTENDERS: dict[str, Callable[[], Burst]] = {
    "d3rlpy IQL": d3rlpy_iql,
    "d3rlpy CQL": d3rlpy_cql,
    "SB3 SAC": sb3_sac,
    "sb3-contrib TQC": sb3_tqc,
    "sbx TQC": sbx_tqc,
}
