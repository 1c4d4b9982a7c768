from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.envs.collect import Dataset
from finflow.envs.simulator import PATH_SCALARS, State
from finflow.nn.actor import Decision
from finflow.stages.prepare import Prepared
from finflow.training.replay_buffer import Batcher, ReplayBuffer, Transitions

GAMMA = 0.9


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batcher(prepared: Prepared, relabel: float, noise: float = 0.0, **more: object) -> Batcher:
    return Batcher(prepared.world, relabel, noise, GAMMA, _generator(1), **more)  # type: ignore[arg-type]


@pytest.fixture
def logged(memory: ReplayBuffer) -> Transitions:
    return memory.sample(200, _generator())


@pytest.mark.parametrize("relabel", [0.0, 0.5, 1.0])
def test_rewards_and_next_states_are_the_ledgers(prepared: Prepared, logged: Transitions, relabel: float) -> None:
    """Every row booked again in numpy: cost on two-way turnover, drift, benchmark, tail."""
    batch = _batcher(prepared, relabel).complete(logged)
    market, reward, rate = prepared.market, prepared.world.reward, prepared.accounting.cost_rate
    for b in range(200):
        t, w, before = int(logged.row[b]), batch.weights[b].double().numpy(), logged.drifted[b].numpy()
        turnover = np.abs(w[:-1] - before[:-1]).sum()
        growth = 1 + (w * market.returns[t + 1]).sum()
        net = (1 - rate * turnover) * growth - 1
        active = reward.scale * (np.log1p(net) - np.log1p(market.benchmark[t + 1]))
        expected = active - 0.5 * reward.lambda_risk * active**2
        expected -= reward.lambda_cvar * max(0.0, -np.log1p(net) - reward.tail_threshold)
        expected -= reward.lambda_turn * turnover
        assert float(batch.reward[b]) == pytest.approx(expected, abs=1e-4)
        drifted = w * (1 + market.returns[t + 1]) / growth
        np.testing.assert_allclose(batch.next_state.drifted[b].numpy(), drifted, atol=1e-6)
        drawdown = max(0.0, float(logged.drawdown[b]) - np.log1p(net))
        assert float(batch.next_state.drawdown[b]) == pytest.approx(drawdown, abs=1e-6)
    assert torch.equal(batch.state.row, logged.row)
    assert torch.equal(batch.next_state.row, logged.next_row)


def test_with_several_actors_nothing_may_be_relabelled(
    prepared: Prepared, logged: Transitions, make_bcell: Callable[..., BCell]
) -> None:
    agent = make_bcell()
    assert agent.networks.actor.actors > 1
    batch = _batcher(prepared, 0.0, act=lambda state: agent.act(state, _generator())).complete(logged)
    assert torch.equal(batch.weights, logged.executed.float())


def test_without_relabelling_logged_rows_come_back(prepared: Prepared, logged: Transitions, dataset: Dataset) -> None:
    batch = _batcher(prepared, 0.0).complete(logged)
    assert torch.equal(batch.weights, logged.executed.float())
    assert torch.equal(batch.state.drifted, logged.drifted)
    assert torch.equal(batch.next_weights, logged.next_executed.float())
    assert torch.equal(batch.has_next, logged.has_next)
    assert not batch.has_next.all()


def test_next_state_is_the_one_that_was_lived(prepared: Prepared, dataset: Dataset) -> None:
    """What the ledger recomputes from a transition is what its successor had stored."""
    memory = ReplayBuffer.of(dataset, torch.device("cpu"))
    after = np.flatnonzero(dataset.previous >= 0)
    before = dataset.previous[after]
    index = torch.from_numpy(before)
    logged = Transitions(
        memory.row[index].long(), memory.next_row[index].long(), memory.drifted[index].double(),
        memory.executed[index].double(), memory.drawdown[index].double(), memory.executed[index].double(),
        torch.ones(len(index), dtype=torch.bool),
    )  # fmt: skip
    batch = _batcher(prepared, 0.0).complete(logged)
    assert np.array_equal(batch.next_state.row.numpy(), dataset.row[after])
    np.testing.assert_allclose(batch.next_state.drifted.numpy(), dataset.drifted[after], atol=1e-5)
    np.testing.assert_allclose(batch.next_state.drawdown.numpy(), dataset.drawdown[after], atol=1e-5)


def test_share_of_relabelled_rows(prepared: Prepared, memory: ReplayBuffer) -> None:
    logged = memory.sample(2000, _generator())
    batch = _batcher(prepared, 0.3).complete(logged)
    kept = (batch.weights == logged.executed.float()).all(-1)
    idle = 0.2  # behaviours that hold what they have may repeat the logged action
    assert 0.3 * (1 - idle) - 0.05 < float((~kept).float().mean()) < 0.3 + 0.04
    assert batch.has_next[~kept].all()
    everywhere = _batcher(prepared, 1.0).complete(logged)
    assert everywhere.has_next.all()


def test_executed_weights_obey_the_rules_of_the_desk(prepared: Prepared, logged: Transitions) -> None:
    capped = replace(prepared.world, accounting=replace(prepared.accounting, max_weight=0.3, min_cash=0.1))
    batch = Batcher(capped, 1.0, 0.0, GAMMA, _generator()).complete(logged)
    for weights in (batch.weights, batch.next_weights):
        assert weights[:, :-1].max() <= 0.3 + 1e-6
        assert weights[:, -1].min() >= 0.1 - 1e-6
        torch.testing.assert_close(weights.sum(-1), torch.ones(200))


def test_time_limit_keeps_the_discount_and_ruin_ends_it(prepared: Prepared, memory: ReplayBuffer) -> None:
    drawn = memory.sample(3000, _generator())
    last = Transitions(*(part[~drawn.has_next] for part in drawn))
    assert len(last.row) > 0
    lost = prepared.world.returns.clone()
    ruined = last.row[: len(last.row) // 2]
    lost[ruined + 1] = -1.0
    batch = Batcher(replace(prepared.world, returns=lost), 0.0, 0.0, GAMMA, _generator()).complete(last)
    gone = torch.isin(last.row, ruined)
    assert (batch.discount[gone] == 0.0).all()
    torch.testing.assert_close(batch.discount[~gone], torch.full((int((~gone).sum()),), GAMMA))
    assert torch.isfinite(batch.reward).all()


def test_phase_one_never_calls_the_policy(
    prepared: Prepared, logged: Transitions, iql: IQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Decision:
        raise AssertionError("asked the policy")

    monkeypatch.setattr(type(iql.networks.actor), "forward", refuse)
    monkeypatch.setattr(Batcher, "_propose", refuse)
    batch = _batcher(prepared, 1.0).complete(logged)
    assert not torch.equal(batch.weights, logged.executed.float())


def test_phase_two_mixes_behaviours_samples_and_noise_around_them(
    prepared: Prepared, memory: ReplayBuffer, make_bcell: Callable[..., BCell]
) -> None:
    """A third each: the policy here always says cash, its noisy neighbours are cash too, behaviours are not."""
    logged = memory.sample(3000, _generator())
    asked: list[State] = []
    agent, n = make_bcell(), prepared.market.n
    wanted = torch.tensor([0.2] * (n - 1) + [1 - 0.2 * (n - 1)])

    def act(state: State) -> Decision:
        asked.append(state)
        return agent.act(state)._replace(mean=wanted.expand(len(state.row), n))

    batch = _batcher(prepared, 1.0, act=act).complete(logged)
    assert len(asked) == 1
    exactly = torch.isclose(batch.weights, wanted, atol=1e-6).all(-1).float().mean()
    assert float(exactly) == pytest.approx(1 / 3, abs=0.03)
    near = ((batch.weights - wanted).abs().amax(-1) < 0.45).float().mean()
    assert float(near) > 0.62


def test_state_noise_blurs_features_of_names_and_market_and_nothing_else(
    prepared: Prepared, logged: Transitions
) -> None:
    clean = _batcher(prepared, 0.0).complete(logged)
    noisy = _batcher(prepared, 0.0, noise=0.01).complete(logged)
    for before, after in ((clean.state, noisy.state), (clean.next_state, noisy.next_state)):
        shift = after.assets - before.assets
        assert float(shift[:, :-1, :-2].std()) == pytest.approx(0.01, rel=0.05)
        assert (shift[:, -1] == 0).all()
        assert (shift[..., -2:] == 0).all()
        path = len(PATH_SCALARS)
        assert float((after.market - before.market)[:, :-path].std()) == pytest.approx(0.01, rel=0.05)
        assert torch.equal(after.market[:, -path:], before.market[:, -path:])
        assert torch.equal(after.drifted, before.drifted)
    assert torch.equal(clean.reward, noisy.reward)
    assert not torch.equal(noisy.state.assets[:, 0], noisy.next_state.assets[:, 0])


def test_same_generator_same_batch(prepared: Prepared, logged: Transitions) -> None:
    first, second = (_batcher(prepared, 0.5).complete(logged) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.next_weights, second.next_weights)
