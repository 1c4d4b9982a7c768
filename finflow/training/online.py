"""Phase 2's loop: act, step, store, update; episodes side by side in one simulator."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from finflow.agents.base import Batch, OnlineCoefficients, Stateful, mean_metrics, own_rows
from finflow.agents.learner import OnlineLearner
from finflow.envs.simulator import Simulator, World
from finflow.schema.sections import OnlineAlgorithm
from finflow.tracking.tracker import progress
from finflow.training.monitor import Monitor
from finflow.training.replay_buffer import Batcher, ReplayBuffer, Walkers, join
from finflow.training.session import Averages, OnlineSession, cosine, linear


class Episode(NamedTuple):
    """Decision rows [L] and the weights [n] held before the first."""

    rows: NDArray[np.int64]
    start: NDArray[np.float64]


@dataclass(frozen=True)
class OnlinePlan:
    """Episodes of phase 2, drawn beforehand, so that progress is known and resuming is exact.

    slots : for each parallel slot its episodes.
    frozen_steps : vector steps of the frozen policy before any update; critic_warmup_updates : updates of the critic
    alone; sigma : entropy target's ends; evaluate_every : episodes between validations.
    """

    slots: list[list[Episode]]
    frozen_steps: int
    critic_warmup_updates: int
    sigma: tuple[float, float]
    evaluate_every: int

    @property
    def steps(self) -> int:
        """Vector steps until the last slot has finished."""
        return max(sum(len(episode.rows) for episode in slot) for slot in self.slots)

    @property
    def episodes(self) -> int:
        """Episodes over all slots."""
        return sum(len(slot) for slot in self.slots)


def share_out(episodes: list[Episode], slots: int) -> list[list[Episode]]:
    """Assign episodes to slots in order, each to the slot with the fewest days so far."""
    dealt: list[list[Episode]] = [[] for _ in range(min(slots, len(episodes)))]
    days = np.zeros(len(dealt), dtype=np.int64)
    for episode in episodes:
        slot = int(days.argmin())
        dealt[slot].append(episode)
        days[slot] += len(episode.rows)
    return dealt


@dataclass
class Slots(Stateful):
    """Running episodes by slot [E]: index, link to the last stored transition, earnings so far."""

    STATE = ("lap", "previous", "reward", "net", "turnover")

    lap: NDArray[np.int64]
    previous: NDArray[np.int64]
    reward: NDArray[np.float64]
    net: list[list[float]]
    turnover: list[list[float]]


@dataclass
class OnlineState(Stateful):
    """Progress of phase 2: its complete state beside the agent and the generators.

    step : vector steps taken; finished : episodes; updates : of the agent; means : of the last period's metrics;
    row : of the last episode.
    """

    STATE = ("simulator", "memory", "slots", "averages", "means", "row", "step", "finished", "updates")

    simulator: Simulator
    memory: ReplayBuffer
    slots: Slots
    averages: Averages = field(default_factory=Averages)
    means: dict[str, float | None] = field(default_factory=lambda: {"critic_loss": None, "actor_loss": None})
    row: dict[str, float | None] = field(default_factory=dict)
    step: int = 0
    finished: int = 0
    updates: int = 0

    @classmethod
    def start(cls, simulator: Simulator, memory: ReplayBuffer, plan: OnlinePlan) -> Self:
        """Before the first step: every slot at the start of its first episode, `memory` empty."""
        count = len(plan.slots)
        longest = max(len(episode.rows) for slot in plan.slots for episode in slot)
        simulator.reset(np.full((count, longest), -1, dtype=np.int64))
        for slot, episodes in enumerate(plan.slots):
            simulator.restart(slot, *episodes[0])
        lap, previous = np.zeros(count, dtype=np.int64), np.full(count, -1, dtype=np.int64)
        slots = Slots(lap, previous, np.zeros(count), [[] for _ in plan.slots], [[] for _ in plan.slots])
        return cls(simulator, memory, slots)


@dataclass(frozen=True)
class Experience:
    """What phase 2 learns from, beside the buffer of its own transitions.

    offline : phase 1's data; batcher : completes samples, and holds their random stream; walkers : along whose paths
    the policy learns, None with a horizon of 0.
    """

    offline: ReplayBuffer
    batcher: Batcher
    walkers: Walkers | None

    def batch(self, lived: ReplayBuffer, size: int, old: int, *, with_paths: bool) -> Batch:
        """A batch of `old` offline transitions and the rest from `lived`; with paths where the policy learns."""
        generator = self.batcher.generator
        batch = self.batcher.complete(join(self.offline.sample(old, generator), lived.sample(size - old, generator)))
        return batch if self.walkers is None or not with_paths else batch._replace(paths=self.walkers.paths())


def train_online(
    agent: OnlineLearner, plan: OnlinePlan, state: OnlineState, experience: Experience, session: OnlineSession
) -> dict[str, float | None]:
    """Fine-tune `agent` from `state` through the episodes of `plan`; returns the last episode's row.

    For a `DivergedError` see `Monitor`.
    """
    config, simulator, slots, monitor = agent.config, state.simulator, state.slots, session.monitor
    with progress(plan.episodes, "fine-tuning (episodes)", state.finished) as advance:
        for slot in np.flatnonzero(~simulator.active):  # after a resume with more episodes
            _begin_episode(simulator, slots, plan, int(slot))
        while simulator.active.any():
            reached = state.step / plan.steps
            with session.phase("environment"):
                _live(agent, state, experience.batcher.world, monitor)
            ready = state.step >= plan.frozen_steps and state.memory.size >= config.batch_size
            if ready and state.step % config.update_interval == 0:
                if state.updates == plan.critic_warmup_updates:
                    session.before_cql()
                now = _coefficients(config, plan, reached, state.updates >= plan.critic_warmup_updates, monitor)
                old = round(linear(config.mixing_ratio, reached) * config.batch_size)
                batch = experience.batch(state.memory, config.batch_size, old, with_paths=now.learn_policy)
                metrics = mean_metrics(agent.update(own_rows(batch), now))
                if batch.paths is not None and experience.walkers is not None:
                    experience.walkers.advance(agent.reached)
                if monitor.add(metrics, batch.reward):
                    state.averages.add(metrics)
                state.updates += 1
            state.step += 1
            done = np.flatnonzero(~simulator.active & (slots.previous >= 0))
            if len(done) > 0:
                monitor.read()
                state.means |= state.averages.means(f"episode {state.finished + 1}")
                state.averages = Averages()
            for slot in done:
                state.finished += 1
                figures = session.summarise(np.array(slots.net[slot]), np.array(slots.turnover[slot]))
                monitor.ended(state.finished, figures["sharpe"])
                own = {"reward": float(slots.reward[slot]), "updates": state.updates}
                state.row = {**figures, **own, **state.means}
                if state.finished % plan.evaluate_every == 0 or state.finished == plan.episodes:
                    state.row |= monitor.validate(session.evaluate, state.finished)
                session.tracker.log("episode", state.finished, state.row)
                advance(1, **{name: state.row[name] for name in ("sharpe", "critic_loss", "actor_loss")})
                slots.previous[slot], slots.reward[slot] = -1, 0.0
                slots.net[slot], slots.turnover[slot] = [], []
                slots.lap[slot] += 1
                _begin_episode(simulator, slots, plan, int(slot))
            session.pause()
    return state.row


def _coefficients(
    config: OnlineAlgorithm, plan: OnlinePlan, progress: float, learn_policy: bool, monitor: Monitor
) -> OnlineCoefficients:
    return OnlineCoefficients(
        sigma=linear(plan.sigma, progress),
        anchor=linear(config.prior_kl_coef, progress),
        temperature=linear(config.gate.temperature, progress) if config.gate else 1.0,
        balance=linear(config.gate.load_balance_coef, progress) if config.gate else 0.0,
        cql=monitor.measures.cql_factor * linear(config.cql.anneal, progress) if config.cql else 0.0,
        learn_policy=learn_policy,
        lr_factor=monitor.measures.lr_factor * cosine(progress),
    )


def _live(agent: OnlineLearner, lived: OnlineState, world: World, monitor: Monitor) -> None:
    """One day in every active slot: observe, draw from the policy, book, store."""
    simulator, slots = lived.simulator, lived.slots
    active = np.flatnonzero(simulator.active)
    state = world.observe(simulator.row, simulator.drifted, simulator.drawdown)
    decision = monitor.sound(lambda: agent.act(state, agent.acting))
    step = simulator.step(decision.mean.double().cpu().numpy())
    lived_through = (step.row, step.next_row, step.before, step.executed, step.drawdown_before, slots.previous)
    stored = lived.memory.add(*(part[active] for part in lived_through))
    slots.previous[active] = stored.cpu().numpy()
    slots.reward[active] += step.reward[active]
    for slot in active:
        slots.net[slot].append(float(step.booked.net[slot]))
        slots.turnover[slot].append(float(step.booked.turnover[slot]))


def _begin_episode(simulator: Simulator, slots: Slots, plan: OnlinePlan, slot: int) -> None:
    if slots.lap[slot] < len(plan.slots[slot]):
        simulator.restart(slot, *plan.slots[slot][slots.lap[slot]])
