"""Phase 1's loop: epochs over the offline data."""

from collections.abc import Callable
from dataclasses import dataclass, field

from finflow.agents.base import Batch, OfflineCoefficients, Stateful, mean_metrics, own_rows
from finflow.agents.learner import OfflineLearner
from finflow.tracking.tracker import progress
from finflow.training.replay_buffer import Walkers
from finflow.training.session import Averages, Session, cosine


@dataclass(frozen=True)
class OfflinePlan:
    """Length of phase 1, and epochs between validations."""

    epochs: int
    updates_per_epoch: int
    evaluate_every: int

    @property
    def updates(self) -> int:
        """Updates in all."""
        return self.epochs * self.updates_per_epoch


@dataclass
class OfflineState(Stateful):
    """Progress of phase 1: updates done, means of the current epoch, the last epoch's row."""

    STATE = ("updates", "averages", "row")

    updates: int = 0
    averages: Averages = field(default_factory=Averages)
    row: dict[str, float | None] = field(default_factory=dict)


def train_offline(
    agent: OfflineLearner,
    plan: OfflinePlan,
    state: OfflineState,
    draw: Callable[[], Batch] | None,
    walkers: Walkers | None,
    session: Session,
) -> dict[str, float | None]:
    """Train `agent` from `state` to the end of `plan`; returns the last epoch's row.

    For a `DivergedError` see `Monitor`.

    Parameters
    ----------
    draw : the next batch of transitions; None for a learner that has no critic.
    walkers : along whose paths the policy learns; None for one that learns from transitions alone.
    """
    monitor = session.monitor
    with progress(plan.updates, "pretraining", state.updates) as advance:
        while state.updates < plan.updates:
            now = OfflineCoefficients(lr_factor=monitor.measures.lr_factor * cosine(state.updates / plan.updates))
            if draw is not None:
                batch = draw()
                batch = batch if walkers is None else batch._replace(paths=walkers.paths())
            else:
                assert walkers is not None
                batch = walkers.batch()
            metrics = mean_metrics(agent.update(own_rows(batch), now))
            if walkers is not None:
                walkers.advance(agent.reached)
            if monitor.add(metrics, None if draw is None else batch.reward):
                state.averages.add(metrics)
            state.updates += 1
            advance(1)
            epoch, rest = divmod(state.updates, plan.updates_per_epoch)
            if rest == 0:
                monitor.ended(epoch)
                state.row = {"updates": state.updates, **state.averages.means(f"epoch {epoch}")}
                state.averages = Averages()
                if epoch % plan.evaluate_every == 0 or epoch == plan.epochs:
                    state.row |= monitor.validate(session.evaluate, epoch)
                session.tracker.log("epoch", epoch, state.row)
                advance(0, **{name: state.row.get(name) for name in ("v_loss", "q_loss", "policy_loss")})
            session.pause()
    return state.row
