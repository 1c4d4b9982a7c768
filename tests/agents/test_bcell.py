import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from finflow.agents.base import Batch, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.envs.simulator import State, World
from finflow.losses import scaled_alpha
from finflow.nn.actor import sample
from finflow.nn.networks import Embedding

from .conftest import huber_of

MakeBCell = Callable[..., BCell]
MakeBatch = Callable[..., Batch]
SILENT = {"anchor": 0.0, "balance": 0.0, "temperature": 1.0, "sigma": 0.2, "cql": 1.0}


def _copy(agent: BCell) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in agent.networks.state_dict().items()}


def _frozen(agent: BCell, state: State) -> Embedding:
    return Embedding(*(part.detach() for part in agent.networks.critic.embed(state)))


def test_update_moves_everything_and_the_gate_slower(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    """Adam's first step is the learning rate itself, so the ratio of the gate's can be read off."""
    gate = make_bcell().config.gate.model_copy(update={"lr_ratio": 0.3})
    agent, batch = make_bcell(gate=gate), make_batch(world)
    before, alpha = _copy(agent), float(agent.log_alpha.detach())
    agent.update(batch, coefficients)
    moved = {name: float((t - before[name]).abs().max()) for name, t in agent.networks.state_dict().items()}
    lr = agent.config.actor_lr
    assert abs(float(agent.log_alpha.detach()) - alpha) == pytest.approx(agent.config.alpha_lr, rel=1e-2)
    assert moved["actor.gate.2.bias"] == pytest.approx(lr * 0.3, rel=1e-2)
    assert moved["actor.experts.out"] == pytest.approx(lr, rel=1e-2)
    assert moved["actor.rate.2.bias"] == pytest.approx(lr, rel=1e-2)
    assert moved["critic.out_bias"] == pytest.approx(agent.config.critic_lr, rel=1e-2)
    assert moved["critic.value_head.3.bias"] == 0  # V is phase 1's
    assert moved["target.out_bias"] == pytest.approx(agent.config.tau * moved["critic.out_bias"], rel=1e-3)


def test_critic_alone_leaves_actor_and_temperature_to_the_bit(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    agent = make_bcell()
    agent.update(make_batch(world), coefficients)
    before, alpha = _copy(agent), agent.log_alpha.detach().clone()
    metrics = agent.update(make_batch(world, seed=1), replace(coefficients, learn_policy=False))
    assert "actor_loss" not in metrics
    assert torch.equal(agent.log_alpha, alpha)
    for name, tensor in agent.networks.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name.startswith("actor.") or "value_head" in name), name


def test_refit_leaves_actor_and_temperature_to_the_bit(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch
) -> None:
    agent = make_bcell()
    before, alpha = _copy(agent), agent.log_alpha.detach().clone()
    metrics = agent.refit(make_batch(world))
    assert set(metrics) == {"v_loss", "q_loss"}
    assert not any(value.requires_grad for value in metrics.values())
    assert torch.equal(agent.log_alpha, alpha)
    changed = {name for name, t in agent.networks.state_dict().items() if not torch.equal(t, before[name])}
    assert not any(name.startswith("actor.") for name in changed)
    assert {"critic.out_bias", "critic.value_head.3.bias", "target.out_bias"} <= changed


def test_actor_loss_sends_no_gradient_to_the_critic(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    agent, batch = make_bcell(), make_batch(world)
    loss, _ = agent._actor_loss(batch, _frozen(agent, batch.state), coefficients)
    loss.backward()
    assert all(parameter.grad is None for parameter in agent.networks.critic.parameters())
    assert all(parameter.requires_grad for parameter in agent.networks.critic.parameters())
    assert any(parameter.grad is not None for parameter in agent.networks.actor.parameters())
    assert agent.log_alpha.grad is not None


@pytest.mark.parametrize("decides", [True, False])
def test_critic_teaches_the_actor_on_decision_days_only(
    make_bcell: MakeBCell, make_batch: MakeBatch, world: World, calm_world: World, decides: bool
) -> None:
    where = world if decides else calm_world
    agent, batch = make_bcell(0, where), make_batch(where)
    with torch.no_grad():
        agent.log_alpha.fill_(-80.0)
    loss, _ = agent._actor_loss(batch, _frozen(agent, batch.state), OnlineCoefficients(**SILENT))
    loss.backward()
    parts = [p.grad for p in agent.networks.actor.parameters() if p.grad is not None]
    total = sum(float(part.abs().sum()) for part in parts)
    assert total > 1e-3 if decides else total < 1e-20


@pytest.mark.parametrize(("scales", "unit"), [(None, 1.0), (Scales(4.0, 9.0), 4.0), (Scales(0.01, 9.0), 0.1)])
def test_actor_loss_by_hand(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, scales: Scales | None, unit: float
) -> None:
    """E[alpha ln pi_y / d - min_j rho(z^j) / S] of the executed sample, rho the mean, S = s_A, .1 at least."""
    agent, batch = make_bcell(), make_batch(world)
    agent.scales = scales
    state, embedding = batch.state, _frozen(agent, batch.state)
    kept = agent.generator.get_state()
    _, metrics = agent._actor_loss(batch, embedding, OnlineCoefficients(**SILENT))
    agent.generator.set_state(kept)
    chance = torch.rand((32, 6), generator=agent.generator)
    decision = agent.networks.actor(state, 1.0, chance >= agent.config.gate.expert_dropout)
    proposal, log_prob = sample(decision, 1, agent.generator)
    executed = world.execute(proposal.squeeze(1), state).float()
    q = agent.networks.critic.atoms(embedding, executed[:, None]).squeeze(1).mean(-1)
    expected = (agent.config.alpha_init * log_prob.squeeze(1) / 3 - q.amin(-1) / unit).mean()
    torch.testing.assert_close(metrics["actor_loss"], expected)


def test_risk_weight_turns_the_mean_into_cvar(make_bcell: MakeBCell, world: World, make_batch: MakeBatch) -> None:
    """The worst quarter of 8 atoms is the mean of the lowest two."""
    losses: list[Tensor] = []
    for weight in (0.0, 0.5, 1.0):
        agent, batch = make_bcell(risk_weight=weight, risk_level=0.25), make_batch(world)
        with torch.no_grad():
            agent.log_alpha.fill_(-80.0)
            agent.networks.critic.out.zero_()
            agent.networks.critic.out_bias.copy_(torch.arange(8.0).flip(0).expand(2, 8))
        _, metrics = agent._actor_loss(batch, _frozen(agent, batch.state), OnlineCoefficients(**SILENT))
        losses.append(metrics["actor_loss"])
    torch.testing.assert_close(torch.stack(losses), torch.tensor([-3.5, -2.0, -0.5]))


def test_critic_target_is_the_lower_twin_of_a_fresh_policy_draw(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    """y_j = r + gamma z_j(s', w'), and no entropy in the backup."""
    agent, batch = make_bcell(), make_batch(world)
    networks = agent.networks
    with torch.no_grad():
        networks.target.out_bias[1] += torch.linspace(-60.0, 40.0, 8)  # lower in the mean, not atom by atom
        kept = agent.generator.get_state()
        _, metrics = agent._critic_loss(batch, networks.critic.embed(batch.state), coefficients)
        agent.generator.set_state(kept)
        proposal, _ = sample(networks.actor(batch.next_state), 1, agent.generator)
        proposal = world.execute(proposal, batch.next_state).float()
        z = networks.target.atoms(networks.target.embed(batch.next_state), proposal)[:, 0, 1]
        y = batch.reward[:, None] + batch.discount[:, None] * z
        atoms = networks.critic.atoms(networks.critic.embed(batch.state), batch.weights[:, None]).squeeze(1)
        error = y[:, None, None, :] - atoms[..., None]
        tau = ((torch.arange(8) + 0.5) / 8)[:, None]
        huber = huber_of(error, atoms)
        expected = (torch.where(error < 0, 1 - tau, tau) * huber).mean()
    torch.testing.assert_close(metrics["critic_loss"], expected)


def test_tqc_target_is_the_mixture_of_both_twins_without_its_top(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    """12 of 16 atoms stay, 6 a critic on average: one twin may lose all of what is cut."""
    agent, batch = make_bcell(top_quantiles_dropped=2), make_batch(world)
    networks = agent.networks
    with torch.no_grad():
        networks.target.out_bias[1] += torch.linspace(-10.0, 30.0, 8)
        kept = agent.generator.get_state()
        _, metrics = agent._critic_loss(batch, networks.critic.embed(batch.state), coefficients)
        agent.generator.set_state(kept)
        proposal, _ = sample(networks.actor(batch.next_state), 1, agent.generator)
        proposal = world.execute(proposal, batch.next_state).float()
        both = networks.target.atoms(networks.target.embed(batch.next_state), proposal)[:, 0]
        z = torch.stack([torch.cat([a, b]).sort().values[:12] for a, b in both])
        y = batch.reward[:, None] + batch.discount[:, None] * z
        atoms = networks.critic.atoms(networks.critic.embed(batch.state), batch.weights[:, None]).squeeze(1)
        error = y[:, None, None, :] - atoms[..., None]
        tau = ((torch.arange(8) + 0.5) / 8)[:, None]
        huber = huber_of(error, atoms)
        expected = (torch.where(error < 0, 1 - tau, tau) * huber).mean()
    torch.testing.assert_close(metrics["critic_loss"], expected)


@pytest.mark.parametrize(("dropped", "value"), [(None, 3.5), (0, 8.5)])
def test_with_tqc_the_actor_climbs_the_mean_of_the_twins(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, dropped: int | None, value: float
) -> None:
    agent, batch = make_bcell(top_quantiles_dropped=dropped), make_batch(world)
    with torch.no_grad():
        agent.log_alpha.fill_(-80.0)
        agent.networks.critic.out.zero_()
        agent.networks.critic.out_bias.copy_(torch.arange(8.0) + torch.tensor([[0.0], [10.0]]))
    _, metrics = agent._actor_loss(batch, _frozen(agent, batch.state), OnlineCoefficients(**SILENT))
    assert float(metrics["actor_loss"].detach()) == pytest.approx(-value)


def test_temperature_follows_the_entropy_target(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    """The actor starts at sigma = .3: a target of .8 asks for more entropy, one of .05 for less."""
    for sigma, direction in ((0.8, 1), (0.05, -1)):
        agent = make_bcell()
        before = float(agent.log_alpha.detach())
        metrics = agent.update(make_batch(world), replace(coefficients, sigma=sigma))
        assert math.copysign(1, float(agent.log_alpha.detach()) - before) == direction
        assert float(metrics["entropy_target"]) == pytest.approx(3 * (math.log(sigma) + 1.4189385), rel=1e-4)
        assert float(metrics["entropy"]) == pytest.approx(3 * (math.log(0.3) + 1.4189385), rel=1e-4)


def test_acting_is_reproducible_and_greedy_without_a_generator(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch
) -> None:
    agent, state = make_bcell(), make_batch(world).state
    kept = agent.generator.get_state()
    greedy = agent.act(state)
    draws = [agent.act(state, torch.Generator().manual_seed(seed)).mean for seed in (5, 5, 6)]
    assert torch.equal(greedy.mean, agent.networks.actor(state).mean)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], greedy.mean)
    torch.testing.assert_close(draws[0].sum(-1), torch.ones(32))
    assert torch.equal(agent.generator.get_state(), kept)
    assert not greedy.mean.requires_grad
    assert agent.networks.actor.training


def test_cql_has_no_weight_until_its_scale_is_measured(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    agent = make_bcell()
    assert agent.cql_weight() == 0.0
    assert "cql" not in agent.update(make_batch(world), coefficients)
    agent.scales = Scales(0.4, 6.0)
    assert agent.cql_weight() == scaled_alpha(agent.config.cql.alpha, 8, 0.4, 6.0) > 0
    assert "cql" in agent.update(make_batch(world), coefficients)
    assert "cql" not in agent.update(make_batch(world), replace(coefficients, cql=0.0))


def test_cql_draws_its_rows_from_the_whole_batch(make_bcell: MakeBCell, world: World, make_batch: MakeBatch) -> None:
    """A batch is offline rows, then online ones: the first quarter alone would leave the online ones free."""
    agent, batch = make_bcell(), make_batch(world)
    networks, seen = agent.networks, torch.zeros(32)
    for _ in range(30):
        embedding = networks.critic.embed(batch.state)
        atoms = networks.critic.atoms(embedding, batch.weights[:, None]).squeeze(1).detach().requires_grad_()
        decision = networks.actor(batch.next_state)
        agent._cql(batch, embedding, atoms, decision).backward()
        assert atoms.grad is not None
        rows = (atoms.grad.abs().sum((1, 2)) > 0).float()
        assert int(rows.sum()) == round(32 * agent.config.cql.batch_fraction)
        seen += rows
    assert seen[:16].sum() == pytest.approx(120, abs=40)
    assert (seen > 0).float().mean() > 0.9


def test_cql_holds_unsupported_portfolios_down(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch, coefficients: OnlineCoefficients
) -> None:
    """All data in cash, worth nothing: the larger the weight of CQL, the lower random portfolios stand."""
    gaps: list[float] = []
    cash = torch.tensor([0.01, 0.01, 0.01, 0.97]).expand(32, 4)
    batch = make_batch(world)._replace(weights=cash, reward=torch.zeros(32), discount=torch.zeros(32))
    scattered = torch.softmax(2 * torch.randn(32, 10, 4, generator=torch.Generator().manual_seed(0)), -1)
    for scales in (None, Scales(6.0, 2.0), Scales(60.0, 2.0)):
        agent = make_bcell(critic_lr=3e-3)
        agent.scales = scales
        for _ in range(100):
            agent.update(batch, replace(coefficients, learn_policy=False))
        critic = agent.networks.critic
        with torch.no_grad():
            embedding = critic.embed(batch.state)
            data = critic.atoms(embedding, cash[:, None]).mean((1, 2, 3))
            free = critic.atoms(embedding, scattered).mean((1, 2, 3))
        gaps.append(float((free - data).mean()))
    assert gaps[0] - 0.1 > gaps[1] > gaps[2] + 0.1


def test_anchor_and_balance_pull_towards_the_benchmark_and_an_even_gate(
    make_bcell: MakeBCell, world: World, make_batch: MakeBatch
) -> None:
    kl, balance = dict[tuple[float, float], float](), dict[tuple[float, float], float]()
    for weights in ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0)):
        agent = make_bcell(actor_lr=1e-2)
        with torch.no_grad():
            agent.networks.actor.experts.out.normal_(0, 1, generator=torch.Generator().manual_seed(0))
            agent.networks.actor.gate[2].bias[..., 0] = 3.0
        now = OnlineCoefficients(sigma=0.2, anchor=weights[0], temperature=1.0, balance=weights[1], cql=0.0)
        for step in range(120):
            metrics = agent.update(make_batch(world, seed=step), now)
        kl[weights], balance[weights] = float(metrics["anchor_kl"]), float(metrics["gate_balance"])
    assert kl[5.0, 0.0] < 0.5 * kl[0.0, 0.0]
    assert balance[0.0, 5.0] < balance[0.0, 0.0]


def test_dear_trades_on_equal_returns_are_left_alone(
    make_bcell: MakeBCell, make_world: Callable[..., World], make_batch: MakeBatch
) -> None:
    """Every name earns the same, a trade costs 5 %: the rate falls from .1 towards holding; free trades keep it."""
    rates: list[float] = []
    for cost_rate in (0.05, 0.0):
        where = make_world(0.0, cost_rate=cost_rate, turnover=0.0)
        agent = make_bcell(0, where, critic_lr=3e-3, actor_lr=3e-3, alpha_init=0.01, tau=0.05)
        with torch.no_grad():
            agent.networks.actor.sigma.bias.fill_(-4.0)
        for step in range(250):
            now = OnlineCoefficients(sigma=0.01, anchor=0.1, temperature=1.0, balance=0.0, cql=0.0,
                                     learn_policy=step >= 100)  # fmt: skip
            agent.update(make_batch(where, 64, seed=step, gamma=0.5, relabel=1.0), now)
        rates.append(float(agent.act(make_batch(where, 64, seed=999).state).rate.mean()))
    assert rates[0] < 0.02
    assert rates[1] > 0.05
