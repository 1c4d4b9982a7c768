"""Refit before phase 2: values are fitted to a reward that differs from the parent's, with the actor frozen."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from finflow.agents.base import Stateful, mean_metrics, own_rows
from finflow.agents.learner import OnlineLearner
from finflow.envs.simulator import World
from finflow.tracking.sink import Tracker
from finflow.tracking.tracker import progress
from finflow.training.replay_buffer import Batcher, ReplayBuffer
from finflow.training.session import Averages


@dataclass
class RefitState(Stateful):
    """Progress of the refit."""

    STATE = ("updates", "averages")

    updates: int = 0
    averages: Averages = field(default_factory=Averages)


def refit(
    agent: OnlineLearner,
    memory: ReplayBuffer,
    world: World,
    tracker: Tracker,
    updates: int,
    state: RefitState,
    *,
    pause: Callable[[], None],
    generator: torch.Generator,
) -> None:
    """Run IQL's value and critic losses on offline data under the new reward, `updates` in all; logged as an alert.

    `pause` is called after every update, where the run can be left and taken up again.
    """
    config = agent.config
    batcher = Batcher(world, config.relabel_fraction, config.network.state_noise, config.gamma, generator)
    with progress(updates, "refitting values to the changed reward", state.updates) as advance:
        while state.updates < updates:
            batch = batcher.complete(memory.sample(config.batch_size, generator))
            state.averages.add(mean_metrics(agent.refit(own_rows(batch))))
            state.updates += 1
            if state.updates % 50 == 0:
                state.averages.means("refit")  # raises where a loss is not finite
            advance(1)
            pause()
    losses = ", ".join(f"{name} {value:.3g}" for name, value in state.averages.means("refit").items())
    tracker.alert("episode", 0, f"reward differs from the parent's: values refitted for {updates} updates ({losses})")
