"""Phase 1's loop: epochs over the offline data."""

from collections.abc import Callable, Mapping

import torch

from finflow.agents.batch import OfflineCoefficients
from finflow.agents.iql import IQL
from finflow.replay import Replay
from finflow.tracking.progress import progress
from finflow.tracking.tracker import Tracker
from finflow.training.averages import Averages
from finflow.training.batches import Batcher
from finflow.training.schedules import cosine


def train_offline(
    agent: IQL,
    memory: Replay,
    batcher: Batcher,
    tracker: Tracker,
    evaluate: Callable[[], Mapping[str, float | None]],
    *,
    epochs: int,
    updates_per_epoch: int,
    evaluate_every: int,
    generator: torch.Generator,
) -> dict[str, float | None]:
    """Train `agent` for `epochs`; returns the last epoch's row.

    Parameters
    ----------
    evaluate : validation figures of the agent as it stands, logged every `evaluate_every` epochs and at the end.

    Raises
    ------
    DivergedError
        At the first epoch whose losses are not finite.
    """
    total = epochs * updates_per_epoch
    row: dict[str, float | None] = {}
    with progress(total, "IQL pretraining") as advance:
        for epoch in range(1, epochs + 1):
            averages = Averages()
            for update in range(updates_per_epoch):
                done = (epoch - 1) * updates_per_epoch + update
                batch = batcher.complete(memory.sample(agent.config.batch_size, generator))
                averages.add(agent.update(batch, OfflineCoefficients(lr_factor=cosine(done / total))))
                advance(1)
            row = {"updates": epoch * updates_per_epoch, **averages.means(f"epoch {epoch}")}
            if epoch % evaluate_every == 0 or epoch == epochs:
                row |= evaluate()
            tracker.log("epoch", epoch, row)
            advance(0, v_loss=row["v_loss"], q_loss=row["q_loss"], policy_loss=row["policy_loss"])
    return row
