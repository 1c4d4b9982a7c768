"""At the hand-over: values are fitted to a reward that differs from the parent's, the actor frozen."""

import torch

from finflow.agents.bcell import BCell
from finflow.envs.world import World
from finflow.replay import Replay
from finflow.tracking.progress import progress
from finflow.tracking.tracker import Tracker
from finflow.training.averages import Averages
from finflow.training.batches import Batcher


def refit(
    agent: BCell, memory: Replay, world: World, tracker: Tracker, updates: int, generator: torch.Generator
) -> None:
    """Run `updates` of IQL's value and critic losses on offline data under the new reward; logged as an alert."""
    config = agent.config
    batcher = Batcher(world, config.relabel_fraction, config.network.state_noise, config.gamma, generator)
    averages = Averages()
    with progress(updates, "refitting values to the changed reward") as advance:
        for _ in range(updates):
            averages.add(agent.refit(batcher.complete(memory.sample(config.batch_size, generator))))
            advance(1)
    losses = ", ".join(f"{name} {value:.3g}" for name, value in averages.means("refit").items())
    tracker.alert("episode", 0, f"reward differs from the parent's: values refitted for {updates} updates ({losses})")
