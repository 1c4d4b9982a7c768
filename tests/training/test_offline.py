from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finflow.agents.iql import IQL
from finflow.errors import DivergedError
from finflow.seeding import torch_stream
from finflow.stages.prepare import Prepared
from finflow.training.monitor import Monitor
from finflow.training.offline import OfflinePlan, OfflineState, train_offline
from finflow.training.replay_buffer import Batcher, ReplayBuffer
from finflow.training.session import cosine

EPOCHS, UPDATES = 5, 4


@pytest.fixture
def train(
    iql: IQL, prepared: Prepared, memory: ReplayBuffer, recorder: object, make_monitor: Callable[..., Monitor]
) -> Callable[[object], object]:
    return lambda evaluate: _train(iql, prepared, memory, recorder, make_monitor(iql, step_name="epoch"), evaluate)


def _train(
    agent: IQL, prepared: Prepared, memory: ReplayBuffer, recorder: object, monitor: Monitor, evaluate: object
) -> object:
    generator = torch_stream(0, "test")
    batcher = Batcher(prepared.world, 0.5, 0.0, 0.99, generator)
    session: Any = SimpleNamespace(tracker=recorder, monitor=monitor, evaluate=evaluate, pause=lambda: None)
    return train_offline(
        agent, OfflinePlan(EPOCHS, UPDATES, 2), OfflineState(),
        lambda: batcher.complete(memory.sample(agent.config.batch_size, generator)), None, session,
    )  # fmt: skip


def test_one_row_an_epoch_and_validation_when_due(
    iql: IQL, train: Callable[[object], object], recorder: object, figures: Mapping[str, float]
) -> None:
    row = train(lambda _: figures)
    rows = recorder.rows  # type: ignore[attr-defined]
    assert [(name, step) for name, step, _ in rows] == [("epoch", epoch) for epoch in range(1, EPOCHS + 1)]
    assert [step for _, step, kept in rows if "validation_sharpe" in kept] == [2, 4, 5]
    assert [kept["updates"] for _, _, kept in rows] == [UPDATES * epoch for epoch in range(1, EPOCHS + 1)]
    assert row == rows[-1][2]
    assert {"v_loss", "q_loss", "policy_loss", "effective_sample"} <= set(rows[0][2])


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_learning_rate_follows_the_cosine_and_the_monitor(
    iql: IQL, prepared: Prepared, memory: ReplayBuffer, recorder: object, figures: Mapping[str, float],
    make_monitor: Callable[..., Monitor], factor: float,
) -> None:  # fmt: skip
    rates: list[float] = []
    step = iql.optimiser.step

    def note(*_: object) -> None:
        rates.append(iql.optimiser.param_groups[0]["lr"])
        step()

    iql.optimiser.step = note  # type: ignore[method-assign, assignment]
    monitor = make_monitor(iql, step_name="epoch")
    monitor.measures.lr_factor = factor
    _train(iql, prepared, memory, recorder, monitor, lambda _: figures)
    total = EPOCHS * UPDATES
    assert rates == pytest.approx([factor * iql.config.critic_lr * cosine(done / total) for done in range(total)])


def test_divergence_names_the_epoch_and_the_loss(
    iql: IQL, train: Callable[[object], object], recorder: object, figures: Mapping[str, float]
) -> None:
    with torch.no_grad():
        iql.networks.critic.value_head[3].bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"^epoch 1, update 1: v_loss is not finite, nor is actor\."):
        train(lambda _: figures)
