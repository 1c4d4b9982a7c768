from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.artifacts.provenance import Stopwatch
from finflow.data.market import REGIMES
from finflow.envs.collect import historical, in_regime, labels, starting_portfolios
from finflow.envs.simulator import Simulator, Step
from finflow.errors import DivergedError
from finflow.stages.prepare import Prepared
from finflow.stages.run import summarise_episode
from finflow.training.monitor import Monitor
from finflow.training.online import Episode, Experience, OnlinePlan, OnlineState, share_out, train_online
from finflow.training.replay_buffer import Batcher, ReplayBuffer

MakeBCell = Callable[..., BCell]
Rows = list[NDArray[np.int64]]
DAYS, SLOTS, BATCH = 21, 3, 16


class Watched(Simulator):
    """Remembers every step of every active slot."""

    steps: list[tuple[NDArray[np.bool_], Step]]

    def step(self, target: NDArray[np.float64]) -> Step:
        active = self.active.copy()
        self.steps = [*getattr(self, "steps", []), (active, super().step(target))]
        return self.steps[-1][1]


def _plan(prepared: Prepared, rows: Rows, **changes: Any) -> OnlinePlan:
    starts = starting_portfolios(prepared.market, prepared.priors, rows, np.random.default_rng(1))
    slots = share_out([Episode(r, s) for r, s in zip(rows, starts, strict=True)], SLOTS)
    plan = OnlinePlan(slots, frozen_steps=8, critic_warmup_updates=5, sigma=(0.3, 0.15), evaluate_every=2)
    return replace(plan, **changes)


@pytest.fixture
def rows(prepared: Prepared) -> Rows:
    return historical(prepared.fold.train, DAYS, 7, np.random.default_rng(0))


@pytest.fixture
def train(
    prepared: Prepared,
    memory: ReplayBuffer,
    recorder: Any,
    figures: Mapping[str, float | None],
    make_monitor: Callable[..., Monitor],
) -> Callable[..., Watched]:
    def run(
        agent: BCell, plan: OnlinePlan, before_cql: Callable[[], None] = lambda: None, monitor: Monitor | None = None
    ) -> Watched:
        simulator = Watched(prepared.market, prepared.accounting, prepared.world.reward)
        generator = torch.Generator().manual_seed(3)
        batcher = Batcher(prepared.world, 0.5, 0.0, 0.99, generator, lambda state: agent.act(state, agent.generator))
        lived = ReplayBuffer(agent.config.buffer_size, prepared.market.n, prepared.world.device)
        state = OnlineState.start(simulator, lived, plan)
        session = SimpleNamespace(
            tracker=recorder, monitor=monitor or make_monitor(agent), evaluate=lambda _: figures,
            summarise=summarise_episode, before_cql=before_cql, pause=lambda: None, phase=Stopwatch().phase,
        )  # fmt: skip
        train_online(agent, plan, state, Experience(memory, batcher, None), session)
        return simulator

    return run


Train = Callable[..., Watched]


def _weights(agent: BCell) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in agent.networks.state_dict().items()}


def _watch(agent: BCell) -> list[tuple[OnlineCoefficients, int, bool]]:
    """Every update's coefficients and batch size, and whether the actor had moved before it."""
    seen: list[tuple[OnlineCoefficients, int, bool]] = []
    update, start = agent.update, _weights(agent)

    def note(batch: Any, coefficients: OnlineCoefficients) -> dict[str, Tensor]:
        actor = agent.networks.actor.state_dict()
        moved = any(not torch.equal(tensor, start[f"actor.{name}"]) for name, tensor in actor.items())
        seen.append((coefficients, len(batch.reward), moved))
        return update(batch, coefficients)

    agent.update = note  # type: ignore[method-assign]
    return seen


def test_one_row_an_episode_and_validation_when_due(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, recorder: Any
) -> None:
    simulator = train(make_bcell(), _plan(prepared, rows))
    logged = recorder.rows
    assert [(name, step) for name, step, _ in logged] == [("episode", k) for k in range(1, 8)]
    assert [step for _, step, row in logged if "validation_sharpe" in row] == [2, 4, 6, 7]
    lived = sum(int(active.sum()) for active, _ in simulator.steps)
    assert lived == sum(row["days"] for _, _, row in logged) == 7 * DAYS
    for _, _, row in logged:
        assert {"return", "sharpe", "cvar", "turnover", "reward", "updates", "critic_loss", "actor_loss"} <= set(row)


def test_figures_of_an_episode_are_its_own(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, recorder: Any
) -> None:
    """Reward, turnover and return of every episode, from the steps that its slot took."""
    simulator = train(make_bcell(), _plan(prepared, rows))
    for k, (_, _, row) in enumerate(recorder.rows):
        slot, lap = k % SLOTS, k // SLOTS
        steps = [step for _, step in simulator.steps[lap * DAYS : (lap + 1) * DAYS]]
        assert row["reward"] == pytest.approx(sum(step.reward[slot] for step in steps))
        assert row["turnover"] == pytest.approx(sum(step.booked.turnover[slot] for step in steps))
        assert row["return"] == pytest.approx(np.prod([1 + step.booked.net[slot] for step in steps]) - 1)


def test_stages_of_the_hand_over(make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train) -> None:
    """No update while the frozen policy collects, then the critic alone, then all; CQL's scale in between."""
    agent, plan = make_bcell(), _plan(prepared, rows)
    seen, measured = _watch(agent), list[int]()
    start = _weights(agent)

    def before_cql() -> None:
        measured.append(len(seen))
        agent.scales = Scales(0.5, 5.0)
        now = _weights(agent)
        assert all(torch.equal(now[name], start[name]) for name in start if name.startswith("actor."))
        assert not torch.equal(now["critic.out_bias"], start["critic.out_bias"])

    train(agent, plan, before_cql)
    assert measured == [plan.critic_warmup_updates]
    assert len(seen) == plan.steps - plan.frozen_steps
    assert [now.learn_policy for now, _, _ in seen] == [k >= plan.critic_warmup_updates for k in range(len(seen))]
    assert [moved for _, _, moved in seen] == [k > plan.critic_warmup_updates for k in range(len(seen))]
    assert all(size == BATCH for _, size, _ in seen)


def test_first_update_waits_for_a_full_batch(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train
) -> None:
    agent, plan = make_bcell(), _plan(prepared, rows, frozen_steps=0)
    seen = _watch(agent)
    train(agent, plan)
    assert len(seen) == plan.steps - (-(-BATCH // SLOTS) - 1)


def test_frozen_policy_is_frozen(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, recorder: Any
) -> None:
    agent = make_bcell()
    start = _weights(agent)
    plan = _plan(prepared, rows)
    train(agent, replace(plan, frozen_steps=plan.steps))
    assert all(torch.equal(tensor, start[name]) for name, tensor in agent.networks.state_dict().items())
    assert [row["updates"] for _, _, row in recorder.rows] == [0] * 7
    assert recorder.rows[-1][2]["critic_loss"] is None


def test_coefficients_follow_their_schedules(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train
) -> None:
    agent, plan = make_bcell(), _plan(prepared, rows)
    seen = _watch(agent)
    train(agent, plan)
    config = agent.config
    for k, (now, _, _) in enumerate(seen):
        progress = (plan.frozen_steps + k) / plan.steps
        for name, ends in (
            ("sigma", plan.sigma),
            ("anchor", config.prior_kl_coef),
            ("temperature", config.gate.temperature),
            ("balance", config.gate.load_balance_coef),
            ("cql", config.cql.anneal),
        ):
            assert getattr(now, name) == pytest.approx(ends[0] + (ends[1] - ends[0]) * progress), name
        assert now.lr_factor == pytest.approx(0.5 * (1 + np.cos(np.pi * progress)))


@pytest.mark.parametrize("interval", [2, 8])
def test_an_update_follows_so_many_steps(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, interval: int
) -> None:
    agent, plan = make_bcell(update_interval=interval), _plan(prepared, rows, critic_warmup_updates=0)
    seen = _watch(agent)
    train(agent, plan)
    assert len(seen) == len([step for step in range(plan.frozen_steps, plan.steps) if step % interval == 0])


def test_the_monitors_factors_reach_every_update(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, make_monitor: Callable[..., Monitor]
) -> None:
    seen: list[list[OnlineCoefficients]] = []
    for factor in (1.0, 3.0):
        agent = make_bcell()
        monitor, noted = make_monitor(agent), _watch(agent)
        monitor.measures.cql_factor = monitor.measures.lr_factor = factor
        train(agent, _plan(prepared, rows), monitor=monitor)
        seen.append([now for now, _, _ in noted])
    for plain, raised in zip(*seen, strict=True):
        assert raised.lr_factor == pytest.approx(3 * plain.lr_factor)
        assert raised.cql == pytest.approx(3 * plain.cql)
        assert replace(raised, lr_factor=plain.lr_factor, cql=plain.cql) == plain


def test_offline_share_of_a_batch_is_annealed(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, memory: ReplayBuffer
) -> None:
    """From a half to a quarter; offline rows stand first in the batch, what was lived online after them."""
    drawn: list[Tensor] = []
    batches: list[Tensor] = []
    agent, sample = make_bcell(), memory.sample
    update = agent.update

    def note(count: int, generator: torch.Generator) -> Any:
        logged = sample(count, generator)
        drawn.append(logged.row)
        return logged

    def learn(batch: Any, now: OnlineCoefficients) -> dict[str, Tensor]:
        batches.append(batch.state.row)
        return update(batch, now)

    memory.sample, agent.update = note, learn  # type: ignore[method-assign]
    simulator = train(agent, _plan(prepared, rows, frozen_steps=0))
    counts = [len(row) for row in drawn]
    assert counts[0] == 8
    assert counts[-1] == 4
    assert counts == sorted(counts, reverse=True)
    lived = {int(row) for active, step in simulator.steps for row in step.row[active]}
    for offline, batch in zip(drawn, batches, strict=True):
        assert torch.equal(batch[: len(offline)], offline)
        assert set(batch[len(offline) :].tolist()) <= lived


def test_episodes_of_a_regime_are_lived_under_its_label(
    make_bcell: MakeBCell, prepared: Prepared, train: Train
) -> None:
    market, window = prepared.market, prepared.fold.train
    label = labels(market)
    counts = np.bincount(label[np.asarray(window.decisions)], minlength=len(REGIMES))
    regime = REGIMES[int(counts.argmax())]
    wanted = in_regime(market, window, regime, DAYS, 5, np.random.default_rng(0))
    simulator = train(make_bcell(), _plan(prepared, wanted))
    lived = np.concatenate([step.row[active] for active, step in simulator.steps])
    assert (label[lived] == REGIMES.index(regime)).all()
    assert sorted(lived.tolist()) == sorted(np.concatenate(wanted).tolist())


def test_same_seed_twice_gives_the_same_weights_and_rows(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train, recorder: Any
) -> None:
    results: list[tuple[dict[str, Tensor], list[Any]]] = []
    for seed in (0, 0, 1):
        agent = make_bcell(seed)
        agent.scales = Scales(0.5, 5.0)
        recorder.rows.clear()
        train(agent, _plan(prepared, rows))
        results.append((_weights(agent), list(recorder.rows)))
    assert all(torch.equal(results[0][0][name], results[1][0][name]) for name in results[0][0])
    assert results[0][1] == results[1][1]
    assert results[0][1] != results[2][1]


def test_divergence_stops_the_run_and_names_the_loss(
    make_bcell: MakeBCell, prepared: Prepared, rows: Rows, train: Train
) -> None:
    agent = make_bcell()
    with torch.no_grad():
        agent.networks.critic.out_bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"^episode 1, update 1: critic_loss is not finite, nor is actor\."):
        train(agent, _plan(prepared, rows))


def test_episodes_are_shared_out_evenly() -> None:
    episodes = [Episode(np.arange(days), np.zeros(2)) for days in (10, 4, 4, 3, 9, 1)]
    dealt = share_out(episodes, 2)
    assert [[len(e.rows) for e in slot] for slot in dealt] == [[10, 9], [4, 4, 3, 1]]
    assert [len(slot) for slot in share_out(episodes[:2], 16)] == [1, 1]
    plan = OnlinePlan(dealt, 0, 0, (0.3, 0.1), 1)
    assert plan.steps == 19
    assert plan.episodes == 6
