"""The monitor on real agents: what it says and how often, what `act` does and in which direction, what it keeps."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.agents.td3bc import TD3BC
from finflow.config.compose import load
from finflow.errors import DataError, DivergedError
from finflow.nn.actor import Decision
from finflow.schema.sections import Act, MonitorConfig
from finflow.stages.prepare import Prepared
from finflow.training import monitor
from finflow.training.monitor import Monitor
from finflow.training.replay_buffer import Batcher, ReplayBuffer

MakeBCell = Callable[..., BCell]
MakeMonitor = Callable[..., Monitor]
QUICK = ("monitor.every=2", "monitor.repeat=6")
ACTING = (*QUICK, "monitor=act", "monitor.act.cooldown=4")
NOW = OnlineCoefficients(sigma=0.3, anchor=1.0, temperature=1.0, balance=1e-2, cql=1.0)
REWARD = torch.tensor([0.1, -0.2, 0.3])


def _metrics(**figures: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in ({"critic_loss": 0.1} | figures).items()}


def _feed(monitor: Monitor, updates: int, **figures: float) -> list[bool]:
    return [monitor.add(_metrics(**figures), REWARD) for _ in range(updates)]


@pytest.fixture
def batch(prepared: Prepared, memory: ReplayBuffer) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return Batcher(prepared.world, 0.5, 0.0, 0.99, generator).complete(memory.sample(64, generator))


def test_every_agent_produces_what_the_rules_read(iql: IQL, td3bc: TD3BC, make_bcell: MakeBCell, batch: Batch) -> None:
    """A rule on a name that no update has would never fire; TD3+BC's policy has a part in every second update."""
    online, offline = make_bcell().update(batch, NOW), iql.update(batch, OfflineCoefficients())
    delayed = td3bc.update(batch, OfflineCoefficients()) | td3bc.update(batch, OfflineCoefficients())
    for metrics, which in ((online, 0), (offline, 1), (delayed, 1)):
        assert {"q_mean", monitor.CRITIC_LOSS[which], monitor.ACTOR_LOSS[which], *monitor.GRAD_NORMS} <= set(metrics)
    assert {"entropy", "entropy_target", "effective_assets"} <= set(online)


def test_a_lasting_condition_is_said_once_in_a_while(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any
) -> None:
    monitor = make_monitor(make_bcell(), *QUICK)
    _feed(monitor, 12, critic_loss=50.0)
    assert len(recorder.alerts) == 2, "updates 2 and 8"
    assert recorder.alerts[0].startswith("monitor: critic_loss 50, beyond monitor.critic_loss=20; lower algo.lr")
    assert "(update 2)" in recorder.alerts[0]
    assert "(update 8)" in recorder.alerts[1]


def test_a_look_averages_over_its_updates(make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any) -> None:
    monitor = make_monitor(make_bcell(), "monitor.every=4")
    for value in (0.0, 0.0, 79.0, 0.0, 0.0, 0.0, 0.0, 81.0):
        _feed(monitor, 1, critic_loss=value)
    assert len(recorder.alerts) == 1
    assert "20.25" in recorder.alerts[0]


def test_off_is_off(make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any) -> None:
    agent = make_bcell()
    monitor = make_monitor(agent, *QUICK, "monitor=off")
    monitor.handed_over({"validation_sharpe": 5.0})
    assert all(_feed(monitor, 20, critic_loss=1e9, q_mean=1e9, entropy=-1e9, entropy_target=0.0))
    for episode in range(1, 40):
        monitor.ended(episode, -100.0)
    score = monitor.validate(lambda _: {"validation_sharpe": -5.0}, 8)
    assert score == {"validation_sharpe": -5.0}
    assert recorder.alerts == []
    assert (monitor.measures.lr_factor, monitor.measures.cql_factor) == (1.0, 1.0)
    with pytest.raises(DivergedError, match="critic_loss is not finite"):
        _feed(monitor, 10, critic_loss=float("nan"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["critic_loss", "actor_grad_norm"])
def test_what_is_not_finite_is_named_with_its_update(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, bad: float, name: str
) -> None:
    """Metrics are read every 10 updates; the one that was first is named all the same."""
    monitor = make_monitor(make_bcell())
    monitor.ended(4)
    _feed(monitor, 13, actor_grad_norm=1.0)
    _feed(monitor, 2, **{"actor_grad_norm": 1.0, name: bad})
    with pytest.raises(DivergedError, match=rf"^episode 5, update 14: {name} is not finite; lower algo.lr") as caught:
        _feed(monitor, 10)
    assert caught.value.exit_code == 5


def test_a_weight_that_is_not_finite_is_named_before_it_is_judged(
    make_bcell: MakeBCell, make_monitor: MakeMonitor
) -> None:
    agent = make_bcell()
    with torch.no_grad():
        agent.networks.actor.rate[2].bias.fill_(float("inf"))
    with pytest.raises(DivergedError, match=r"actor\.rate\.2\.bias is not finite"):
        make_monitor(agent).validate(lambda _: pytest.fail("judged"), 1)


def test_no_environment_is_handed_a_nan(make_bcell: MakeBCell, make_monitor: MakeMonitor, batch: Batch) -> None:
    for mode in ("warn", "act"):
        agent = make_bcell()
        monitor = make_monitor(agent, f"monitor={mode}")
        whole = agent.act(batch.state).mean
        with torch.no_grad():
            agent.networks.actor.rate[2].bias.fill_(float("nan"))

        def decide(agent: BCell = agent) -> Decision:
            return agent.act(batch.state)

        if mode == "warn":
            with pytest.raises(DivergedError, match=r"the policy's action is not finite, nor is actor\.rate"):
                monitor.sound(decide)
        else:
            assert torch.equal(monitor.sound(decide).mean, whole)
            assert monitor.measures.taken == 1


def test_acting_lowers_the_learning_rate(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any, batch: Batch
) -> None:
    """The factor reaches every group of both optimisers, and a lower rate moves the weights less."""
    moved: list[float] = []
    for loss in (0.1, 50.0):
        agent = make_bcell()
        monitor = make_monitor(agent, *ACTING)
        _feed(monitor, 2, critic_loss=loss)
        before = torch.nn.utils.parameters_to_vector(agent.networks.parameters()).detach().clone()
        agent.update(batch, replace(NOW, lr_factor=monitor.measures.lr_factor))
        after = torch.nn.utils.parameters_to_vector(agent.networks.parameters()).detach()
        moved.append(float((after - before).norm()))
        groups = [*agent.critic_optimiser.param_groups, *agent.actor_optimiser.param_groups]
        assert [group["lr"] for group in groups] == [lr * monitor.measures.lr_factor for lr in agent.base_lr]
    assert monitor.measures.lr_factor == 0.5
    assert monitor.measures.cql_factor == 1.0
    assert moved[1] == pytest.approx(0.5 * moved[0], rel=0.05)
    assert "learning rate lowered to 0.5 times its schedule (measure 1 of 5)" in recorder.alerts[-1]


def test_acting_raises_cql(make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any) -> None:
    monitor = make_monitor(make_bcell(), *ACTING)
    _feed(monitor, 2, q_mean=500.0)
    assert (monitor.measures.cql_factor, monitor.measures.lr_factor) == (2.0, 1.0)
    assert "CQL raised to 2 times its schedule" in recorder.alerts[-1]
    without = make_monitor(make_bcell(), *ACTING, conservative=False)
    _feed(without, 2, q_mean=500.0)
    assert (without.measures.cql_factor, without.measures.lr_factor) == (1.0, 0.5)
    _feed(make_monitor(make_bcell(), *QUICK, conservative=False), 2, q_mean=500.0)
    assert "raise algo.cql" not in recorder.alerts[-1]


def test_more_cql_is_more_conservative(make_bcell: MakeBCell, batch: Batch) -> None:
    """Known fault: an "increase" that cut CQL. Twice the factor pushes unseen portfolios further under the data's."""
    gaps: list[float] = []
    for factor in (0.0, 1.0, 2.0):
        agent = make_bcell(critic_lr=3e-3)
        agent.scales = Scales(20.0, 2.0)
        for _ in range(40):
            agent.update(batch, replace(NOW, cql=factor, learn_policy=False))
        generator = torch.Generator().manual_seed(1)
        other = -torch.log(torch.rand(batch.weights.shape, generator=generator))
        other = other / other.sum(-1, keepdim=True)
        with torch.no_grad():
            critic = agent.networks.critic
            q = critic.atoms(critic.embed(batch.state), torch.stack([other, batch.weights], 1)).mean((-1, -2))
        gaps.append(float((q[:, 0] - q[:, 1]).mean()))
    assert gaps[2] < gaps[1] - 0.02 < gaps[0] - 0.04, gaps


def _weights(agent: BCell) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in agent.networks.state_dict().items()}


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_acting_goes_back_to_the_last_clean_state(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, batch: Batch, recorder: Any
) -> None:
    """Twice in a row: what is gone back to must not be what the optimiser has written on since."""
    agent = make_bcell()
    monitor = make_monitor(agent, *ACTING, "monitor.act.cooldown=1")
    agent.update(batch, NOW)
    monitor.ended(8)
    monitor.validate(lambda _: {"validation_sharpe": 1.0}, 8)
    good, optimiser = _weights(agent), copy.deepcopy(agent.critic_optimiser.state_dict()["state"])
    for count in (1, 2):
        for _ in range(3):
            agent.update(batch, NOW)
        assert not _equal(_weights(agent), good)
        assert _feed(monitor, 1, critic_loss=float("nan")) == [False]
        assert _equal(_weights(agent), good)
        back = agent.critic_optimiser.state_dict()["state"]
        assert all(torch.equal(back[key]["exp_avg"], optimiser[key]["exp_avg"]) for key in optimiser)
        assert monitor.measures.lr_factor == 0.5**count
    assert "critic_loss is not finite: back to episode 8, learning rate lowered to 0.25" in recorder.alerts[-1]


def test_a_state_in_trouble_is_not_kept(make_bcell: MakeBCell, make_monitor: MakeMonitor, batch: Batch) -> None:
    agent = make_bcell()
    start = _weights(agent)
    monitor = make_monitor(agent, *ACTING)
    monitor.handed_over({"validation_sharpe": 1.0})
    agent.update(batch, NOW)
    _feed(monitor, 2, critic_loss=50.0)
    monitor.validate(lambda _: {"validation_sharpe": 1.0}, 8)
    _feed(monitor, 1, critic_loss=float("nan"))
    assert _equal(_weights(agent), start)


def test_an_action_that_is_not_finite_is_a_divergence(make_bcell: MakeBCell, make_monitor: MakeMonitor) -> None:
    """Finite weights may be so large that the policy's action is not: validation then refuses its target."""

    def refused(_: int) -> Mapping[str, float]:
        raise DataError("target weight is not finite")

    with pytest.raises(DivergedError, match="the policy's action"):
        make_monitor(make_bcell(), *QUICK).validate(refused, 8)


def test_a_dip_is_undone(make_bcell: MakeBCell, make_monitor: MakeMonitor, batch: Batch, recorder: Any) -> None:
    agent = make_bcell()
    start = _weights(agent)
    monitor = make_monitor(agent, *ACTING)
    monitor.handed_over({"validation_sharpe": 1.0})
    agent.update(batch, NOW)
    score = monitor.validate(lambda _: {"validation_sharpe": 0.5, "validation_active_information_ratio": -1.0}, 8)
    assert _equal(_weights(agent), start)
    assert score["lr_factor"] == 0.5
    assert "below phase 1's 1 by more than monitor.dip=0.3: back to the hand-over" in recorder.alerts[-1]


def test_gentle_measures_come_first_and_each_is_given_time(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any
) -> None:
    """settle 4 and a look every 2 updates: measures at 2, 6, 10, ...; two gentle ones, then back; five at most."""
    monitor = make_monitor(make_bcell(), *ACTING)
    with pytest.raises(DivergedError, match=r"^episode 1, update 22: critic_loss 50, .* after 5 measures") as caught:
        _feed(monitor, 100, critic_loss=50.0)
    assert caught.value.exit_code == 5
    measures = [line for line in recorder.alerts if "measure " in line]
    assert [line.split(": ")[2].split(" ")[0] for line in measures] == ["learning", "learning", *["back"] * 3]
    assert [int(line.split("(update ")[1][:-1]) for line in measures] == [2, 6, 10, 14, 18]
    assert monitor.measures.lr_factor == 0.5**5


def test_an_outlier_is_said_and_changes_nothing(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any
) -> None:
    monitor = make_monitor(make_bcell(), *ACTING)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        monitor.add(_metrics(), torch.randn(1000, generator=generator))
    assert recorder.alerts == []
    reward = torch.randn(1000, generator=generator)
    reward[7] = -200.0
    monitor.add(_metrics(), reward)
    monitor.add(_metrics(), torch.randn(1000, generator=generator))
    assert len(recorder.alerts) == 1
    assert recorder.alerts[0].startswith("monitor: reward -200 is ")
    assert monitor.measures.taken == 0


def test_episodes_with_a_low_sharpe_ratio_are_said(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any
) -> None:
    monitor = make_monitor(make_bcell())
    for episode in range(1, 30):
        monitor.ended(episode, -2.0 + 0.5 * (-1) ** episode)
    assert len(recorder.alerts) == 1
    assert "Sharpe ratio of the last 16 episodes -2" in recorder.alerts[0]


def test_a_restored_monitor_goes_on_as_if_nothing_had_happened(
    make_bcell: MakeBCell, make_monitor: MakeMonitor, recorder: Any, batch: Batch
) -> None:
    """Its own part goes through JSON; the agent's state that it keeps goes as the agent's own does."""

    def live(monitor: Monitor, updates: range) -> None:
        for update in updates:
            figures = {"critic_loss": 50.0 if update % 20 > 12 else 0.1, "entropy": -0.5 * (update % 9)}
            monitor.add(_metrics(entropy_target=-1.0, **figures), REWARD * (1 + update % 7))
            if update % 5 == 0:
                monitor.ended(update // 5, -3.0 + 0.1 * (update % 3))

    agent = make_bcell()
    whole = make_monitor(agent, *ACTING, "monitor.act.max_interventions=50")
    live(whole, range(1, 30))
    state = whole.state_dict()
    good = state["measures"].pop("good")
    state = json.loads(json.dumps(state))
    state["measures"]["good"] = copy.deepcopy(good)
    said = len(recorder.alerts)
    live(whole, range(30, 120))
    expected, weights = recorder.alerts[said:], _weights(agent)
    assert len(expected) > 3
    assert any("back to" in line for line in expected)

    agent.update(batch, NOW)
    other = make_monitor(agent, *ACTING, "monitor.act.max_interventions=50")
    other.load_state_dict(state)
    said = len(recorder.alerts)
    live(other, range(30, 120))
    assert recorder.alerts[said:] == expected
    assert _equal(_weights(agent), weights)
    assert (other.measures.lr_factor, other.measures.cql_factor) == (
        whole.measures.lr_factor,
        whole.measures.cql_factor,
    )


def test_every_key_is_read(make_bcell: MakeBCell, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()

    def note(cls: type) -> Callable[[Any, str], Any]:
        def get(section: Any, name: str) -> Any:
            if name in cls.model_fields:  # type: ignore[attr-defined]
                read.add(f"{cls.__name__}.{name}")
            return object.__getattribute__(section, name)

        return get

    for cls in (Act, MonitorConfig):
        monkeypatch.setattr(cls, "__getattribute__", note(cls))
    settings = [*ACTING]
    section = load("finetune", settings).monitor
    read.clear()  # what validation has looked at
    monitor = Monitor(section, make_bcell(), recorder, step_name="episode", names=4, conservative=True)
    monitor.handed_over({"validation_sharpe": 1.0})
    _feed(monitor, 8, critic_loss=50.0, entropy=-9.0, entropy_target=-9.0, effective_assets=2.0)
    _feed(monitor, 8, q_mean=500.0, entropy=-9.0, entropy_target=-9.0)
    monitor.ended(1, 0.5)
    monitor.validate(
        lambda _: {"validation_sharpe": 1.0, "validation_turnover": 2.0, "validation_effective_assets": 9.0}, 8
    )
    assert {f"{cls.__name__}.{name}" for cls in (Act, MonitorConfig) for name in cls.model_fields} == read
