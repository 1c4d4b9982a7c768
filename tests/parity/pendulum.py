"""IQL on Pendulum-v1, FinFlow's update and d3rlpy's, on the same generated data with the same number of updates.

    .venv-parity/bin/python -m tests.parity.pendulum [--updates 10000] [--seeds 5]

The data: an energy controller swings the pendulum up and holds it, blurred by noise that differs between episodes.
FinFlow trains through `IQL.update` itself; only the policy's loss is replaced, a tanh-Gaussian having no portfolio.
All learn from rewards of unit deviation, and returns are told in Pendulum's own unit. FinFlow's Huber loss is linear
beyond an error of 1, which suits rewards that subtract a benchmark; here values are of size 90, and what d3rlpy takes
is the square. So its quadratic zone is as wide as they are.
"""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast
from unittest import mock

import gymnasium
import numpy as np
import structlog
import torch
from d3rlpy.algos import IQLConfig
from d3rlpy.dataset import MDPDataset
from d3rlpy.logging import NoopAdapterFactory
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients
from finflow.agents.iql import IQL
from finflow.config.compose import load
from finflow.envs.simulator import World
from finflow.losses import advantage_weight, effective_sample_share, quantile_huber_loss
from finflow.nn.networks import Networks
from tests.parity.networks import BoxCritic, TanhGaussian, density

STATE, ACTION, HIDDEN, DAYS = 3, 1, 256, 200
TORQUE = 2.0  # of an action of 1
KAPPA = 100.0  # half-width of the Huber loss's quadratic zone
EPISODES, JUDGED = 100, 20
NOISE = (0.1, 1.0)  # share of uniform noise in an episode's actions, drawn between these
SETTINGS = ("algo.batch_size=256", "algo.gamma=0.99", "algo.lr=3e-4")  # d3rlpy's own
Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Data(NamedTuple):
    """E episodes of 200 steps: states [E, 201, 3], actions [E, 200, 1] in [-1, 1], rewards [E, 200]."""

    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]


def controller(state: NDArray[np.float32]) -> float:
    """Torque in [-1, 1]: pump energy while hanging, hold by a linear law near the top."""
    cosine, sine, speed = (float(part) for part in state)
    if cosine > 0.9:
        return float(np.clip(-(12.0 * np.arctan2(sine, cosine) + 3.0 * speed) / TORQUE, -1.0, 1.0))
    energy = speed**2 / 6.0 + 5.0 * cosine  # 5 at rest on top
    return float(np.clip(2.0 * (5.0 - energy) * speed, -1.0, 1.0))


def generate(seed: int, episodes: int = EPISODES) -> Data:
    """Episode i mixes the controller with uniform noise in a proportion of its own."""
    rng = np.random.default_rng(seed)
    env = gymnasium.make("Pendulum-v1").unwrapped
    states = np.zeros((episodes, DAYS + 1, STATE), dtype=np.float32)
    actions, rewards = np.zeros((episodes, DAYS, ACTION), np.float32), np.zeros((episodes, DAYS), np.float32)
    for episode in range(episodes):
        states[episode, 0], _ = env.reset(seed=int(rng.integers(2**31)))
        blur = rng.uniform(*NOISE)
        for t in range(DAYS):
            chosen = (1.0 - blur) * controller(states[episode, t]) + blur * rng.uniform(-1.0, 1.0)
            actions[episode, t] = chosen
            states[episode, t + 1], rewards[episode, t], *_ = env.step(TORQUE * actions[episode, t])
    return Data(states, actions, rewards)


class TanhIQL(IQL):
    """FinFlow's IQL, update and all, with the policy's loss of the paper on a box of actions."""

    def _regression(self, batch: Batch, advantage: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        weight = advantage_weight(advantage, self.config.beta, self.config.max_weight, self.config.normalise_advantage)
        loss = -(weight * density(self.networks.actor(batch.state), batch.weights)).mean()
        return loss, {"effective_sample": effective_sample_share(weight)}


def finflow_iql(data: Data, updates: int, seed: int, atoms: int) -> Act:
    """Train FinFlow's update with `atoms` quantiles (1: a mean) for `updates` batches of 256."""
    config = load("pretrain", ["algo.extraction=awr", "algo.normalise_advantage=false", *SETTINGS]).algo
    config = config.model_copy(update={"network": config.network.model_copy(update={"n_quantiles": atoms})})
    torch.manual_seed(seed)
    networks = Networks(TanhGaussian(STATE, ACTION, HIDDEN, free_sigma=True), BoxCritic(STATE, ACTION, HIDDEN, atoms))
    agent = TanhIQL(networks, config, cast("World", None), torch.Generator())  # no desk executes a torque
    flat = {
        "state": data.states[:, :-1].reshape(-1, STATE),
        "next_state": data.states[:, 1:].reshape(-1, STATE),
        "action": data.actions.reshape(-1, ACTION),
        "next_action": np.roll(data.actions, -1, axis=1).reshape(-1, ACTION),
        "reward": data.rewards.reshape(-1),
        "has_next": np.broadcast_to(np.arange(DAYS) < DAYS - 1, data.rewards.shape).reshape(-1).copy(),
    }
    tensors = {name: torch.from_numpy(array) for name, array in flat.items()}
    discount = torch.full((config.batch_size,), config.gamma)  # only time limits end an episode
    with mock.patch(
        "finflow.agents.iql.quantile_loss", lambda atoms, target, _scale: quantile_huber_loss(atoms, target, KAPPA)
    ):
        for _ in range(updates):
            index = torch.randint(len(tensors["reward"]), (config.batch_size,))
            part = {name: tensor[index] for name, tensor in tensors.items()}
            batch = Batch(
                part["state"], part["action"], part["reward"], discount,
                part["next_state"], part["next_action"], part["has_next"],
            )  # fmt: skip
            agent.update(batch, OfflineCoefficients())

    @torch.no_grad()
    def act(states: NDArray[np.float32]) -> NDArray[np.float32]:
        return torch.tanh(networks.actor(torch.from_numpy(states)).mean).numpy()

    return act


def d3rlpy_iql(data: Data, updates: int, seed: int) -> Act:
    """Train d3rlpy's IQL, its defaults, for `updates` batches of 256."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what d3rlpy draws batches from
    ends, terminals = np.zeros(data.rewards.shape, np.float32), np.zeros(data.rewards.size, np.float32)
    ends[:, -1] = 1.0
    dataset = MDPDataset(
        data.states[:, :-1].reshape(-1, STATE), data.actions.reshape(-1, ACTION), data.rewards.reshape(-1, 1),
        terminals, ends.reshape(-1),
    )  # fmt: skip
    algo = IQLConfig().create(device="cpu")
    algo.fit(
        dataset, n_steps=updates, n_steps_per_epoch=updates, show_progress=False,
        logger_adapter=NoopAdapterFactory(), save_interval=10**9,
    )  # fmt: skip
    return algo.predict


def judge(act: Act) -> float:
    """Mean return of 20 episodes whose starts are the same for everybody."""
    envs = [gymnasium.make("Pendulum-v1").unwrapped for _ in range(JUDGED)]
    states = np.stack([env.reset(seed=10_000 + i)[0] for i, env in enumerate(envs)])
    total = 0.0
    for _ in range(DAYS):
        stepped = [env.step(TORQUE * action) for env, action in zip(envs, act(states), strict=True)]
        states = np.stack([step[0] for step in stepped]).astype(np.float32)
        total += sum(float(step[1]) for step in stepped)
    return total / JUDGED


def train_all(seed: int, updates: int) -> dict[str, float]:
    """Return of the behaviour and of every learner on the data of `seed`."""
    data = generate(seed)
    behaviour = float(data.rewards.sum(1).mean())
    data = data._replace(rewards=data.rewards / data.rewards.std())
    contenders: dict[str, Callable[[], Act]] = {
        "d3rlpy": lambda: d3rlpy_iql(data, updates, seed),
        "FinFlow, 1 atom": lambda: finflow_iql(data, updates, seed, 1),
        "FinFlow, 32 atoms": lambda: finflow_iql(data, updates, seed, 32),
    }
    found = {"behaviour": behaviour}
    for name, train in contenders.items():
        found[name] = judge(train())
        print(f"seed {seed}  {name:18} {found[name]:8.1f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5, help="seeds that the file holds already are not run again")
    parser.add_argument("--out", type=Path, default=Path("outputs/parity/pendulum.json"))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    rows: dict[str, dict[str, float]] = kept.get("returns", {}) if kept.get("updates") == options.updates else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        rows[str(seed)] = rows.get(str(seed)) or train_all(seed, options.updates)
        options.out.write_text(json.dumps({"updates": options.updates, "returns": rows}, indent=1))
    print(f"\nmean return, {len(rows)} seeds of data and learner, {options.updates} updates")
    for name in next(iter(rows.values())):
        values = np.array([row[name] for row in rows.values()])
        apart = values - np.array([row["d3rlpy"] for row in rows.values()])
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
        print(f"{name:18} {values.mean():8.1f}  sd {values.std():6.1f}", end="")
        print(f"  minus d3rlpy {apart.mean():7.1f}, standard error {error:.1f}")


if __name__ == "__main__":
    main()
