"""Phase 2's loop: act, step, store, update; episodes side by side in one simulator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.agents.batch import OnlineCoefficients
from finflow.agents.bcell import BCell
from finflow.envs.simulator import Simulator, Step
from finflow.envs.world import World
from finflow.replay import Replay, join
from finflow.schema.algo import BCell as BCellConfig
from finflow.tracking.progress import progress
from finflow.tracking.tracker import Tracker
from finflow.training.averages import Averages
from finflow.training.batches import Batcher
from finflow.training.schedules import linear

Evaluate = Callable[[int], Mapping[str, float | None]]
Summarise = Callable[[NDArray[np.float64], NDArray[np.float64]], Mapping[str, float | None]]


class Episode(NamedTuple):
    """Decision rows [L] and the weights [n] held before the first."""

    rows: NDArray[np.int64]
    start: NDArray[np.float64]


@dataclass(frozen=True)
class OnlinePlan:
    """What phase 2 will live through, drawn beforehand, so that progress is known and resuming is exact.

    slots : for each parallel slot its episodes.
    frozen_steps : vector steps of the frozen policy before any update; critic_updates : updates of the critic
    alone; sigma : entropy target's ends; evaluate_every : episodes between validations.
    """

    slots: list[list[Episode]]
    frozen_steps: int
    critic_updates: int
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
    """Deal episodes to slots in order, each to the slot with the fewest days so far."""
    dealt: list[list[Episode]] = [[] for _ in range(min(slots, len(episodes)))]
    days = np.zeros(len(dealt), dtype=np.int64)
    for episode in episodes:
        slot = int(days.argmin())
        dealt[slot].append(episode)
        days[slot] += len(episode.rows)
    return dealt


@dataclass
class _Slots:
    """Episodes as they are lived: queue, link to the last stored transition, and what was earned."""

    queue: list[list[Episode]]
    previous: NDArray[np.int64]
    net: list[list[float]]
    turnover: list[list[float]]
    reward: NDArray[np.float64]


def train_online(
    agent: BCell,
    simulator: Simulator,
    world: World,
    plan: OnlinePlan,
    offline: Replay,
    batcher: Batcher,
    tracker: Tracker,
    evaluate: Evaluate,
    summarise: Summarise,
    *,
    before_cql: Callable[[], None],
    generator: torch.Generator,
) -> dict[str, float | None]:
    """Fine-tune `agent` through the episodes of `plan`; returns the last episode's row.

    Parameters
    ----------
    evaluate : (episodes finished) -> validation figures of the agent as it stands.
    summarise : (net [L], turnover [L]) of an episode -> its return, Sharpe ratio, CVaR, turnover.
    before_cql : called once when the critic-only warm-up ends (from scratch, it measures the scale of CQL).
    generator : of the offline and online samples.

    Raises
    ------
    DivergedError
        Within 50 updates of a loss that is not finite.
    """
    config = agent.config
    memory = Replay(config.memory_capacity, simulator.market.n, world.device)
    slots = _start(simulator, plan)
    averages, row = Averages(), {}
    means: dict[str, float | None] = {"critic_loss": None, "actor_loss": None}
    finished = updates = 0
    with progress(plan.episodes, "B-Cell fine-tuning (episodes)") as advance:
        for step_number in range(plan.steps):
            _live(agent, simulator, world, memory, slots)
            if step_number >= plan.frozen_steps and memory.size >= config.batch_size:
                if updates == plan.critic_updates:
                    before_cql()
                now = _coefficients(config, plan, step_number / plan.steps, updates >= plan.critic_updates)
                share = linear(config.offline_fraction, step_number / plan.steps)
                old = round(share * config.batch_size)
                logged = join(offline.sample(old, generator), memory.sample(config.batch_size - old, generator))
                averages.add(agent.update(batcher.complete(logged), now))
                updates += 1
            done = np.flatnonzero(~simulator.active & (slots.previous >= 0))
            if len(done) == 0:
                continue
            means |= averages.means(f"episode {finished + 1}")
            averages = Averages()
            for slot in done:
                finished += 1
                figures = summarise(np.array(slots.net[slot]), np.array(slots.turnover[slot]))
                row = {**figures, "reward": float(slots.reward[slot]), "updates": updates, **means}
                if finished % plan.evaluate_every == 0 or finished == plan.episodes:
                    row |= evaluate(finished)
                tracker.log("episode", finished, row)
                advance(1, sharpe=row["sharpe"], critic_loss=row["critic_loss"], actor_loss=row["actor_loss"])
                _next_episode(simulator, slots, int(slot))
    return row


def _coefficients(config: BCellConfig, plan: OnlinePlan, progress: float, learn_policy: bool) -> OnlineCoefficients:
    return OnlineCoefficients(
        sigma=linear(plan.sigma, progress),
        anchor=linear(config.anchor, progress),
        temperature=linear(config.gate.temperature, progress),
        balance=linear(config.gate.balance, progress),
        cql=linear(config.cql.anneal, progress),
        learn_policy=learn_policy,
    )


def _start(simulator: Simulator, plan: OnlinePlan) -> _Slots:
    count = len(plan.slots)
    longest = max(len(episode.rows) for slot in plan.slots for episode in slot)
    simulator.reset(np.full((count, longest), -1, dtype=np.int64))
    for slot, episodes in enumerate(plan.slots):
        simulator.restart(slot, *episodes[0])
    return _Slots(
        [list(episodes[1:]) for episodes in plan.slots],
        np.full(count, -1, dtype=np.int64),
        [[] for _ in plan.slots],
        [[] for _ in plan.slots],
        np.zeros(count),
    )


def _live(agent: BCell, simulator: Simulator, world: World, memory: Replay, slots: _Slots) -> None:
    """One day in every active slot: observe, draw from the policy, book, store."""
    device = world.device
    active = np.flatnonzero(simulator.active)
    state = world.observe(
        torch.as_tensor(simulator.row, device=device),
        torch.as_tensor(simulator.drifted, device=device),
        torch.as_tensor(simulator.drawdown, device=device),
    )
    decision = agent.act(state, agent.generator)
    step: Step = simulator.step(decision.mean.double().cpu().numpy())

    def put(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.as_tensor(values[active], device=device)

    stored = memory.add(
        put(step.row),
        put(step.next_row),
        put(step.before),
        put(step.executed),
        put(step.drawdown_before),
        put(slots.previous),
    )
    slots.previous[active] = stored.cpu().numpy()
    slots.reward[active] += step.reward[active]
    for slot in active:
        slots.net[slot].append(float(step.booked.net[slot]))
        slots.turnover[slot].append(float(step.booked.turnover[slot]))


def _next_episode(simulator: Simulator, slots: _Slots, slot: int) -> None:
    slots.previous[slot], slots.reward[slot] = -1, 0.0
    slots.net[slot], slots.turnover[slot] = [], []
    if slots.queue[slot]:
        simulator.restart(slot, *slots.queue[slot].pop(0))
