import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients
from finflow.agents.iql import IQL, implicit_losses
from finflow.envs.simulator import State, World
from finflow.losses import midpoints
from finflow.nn.networks import Networks
from tests.shapes import small_network

from .conftest import huber_of

MakeIQL = Callable[..., IQL]
MakeBatch = Callable[..., Batch]
VALUES_ONLY = OfflineCoefficients(learn_policy=False)


def _weights(networks: Networks) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in networks.state_dict().items()}


def _two_states(world: World) -> State:
    """Two days of the world, held alike: states A and B."""
    held = torch.full((2, 4), 0.25, dtype=torch.float64)
    return world.observe(torch.tensor([3, 50]), held, torch.zeros(2, dtype=torch.float64))


def _rows(state: State, index: Tensor) -> State:
    return State(*(part[index] for part in state))


def _chain(states: State, at: Tensor, to: Tensor, reward: Tensor, discount: Tensor, known: bool = True) -> Batch:
    weights = torch.full((len(at), 4), 0.25)
    has_next = torch.full((len(at),), known)
    return Batch(_rows(states, at), weights, reward, discount, _rows(states, to), weights, has_next)


def test_two_state_chain_converges_to_its_mean_and_quantiles(make_iql: MakeIQL, world: World) -> None:
    """A pays 4 and leads to B, B pays N(0, 6) and leads to A, gamma .5: Z = mean + 6 gamma^k / sqrt(1 - gamma^4)."""
    gamma, noise, atoms = 0.5, 6.0, 16
    network = small_network(n_quantiles=atoms)
    agent = make_iql(critic_lr=3e-3, tau=0.05, network=network)
    states, generator = _two_states(world), torch.Generator().manual_seed(0)
    at = torch.arange(128) % 2
    steps = 1200
    for step in range(steps):
        reward = torch.where(at == 0, 4.0, noise * torch.randn(128, generator=generator))
        batch = _chain(states, at, 1 - at, reward, torch.full((128,), gamma))
        agent.update(batch, OfflineCoefficients(lr_factor=1 - step / steps, learn_policy=False))
    critic = agent.networks.critic
    with torch.no_grad():
        embedding = critic.embed(states)
        fitted = critic.atoms(embedding, torch.full((2, 1, 4), 0.25)).squeeze(1).mean(1)
        value = critic.value(embedding)
    mean = torch.tensor([4 / (1 - gamma**2), 4 * gamma / (1 - gamma**2)])
    spread = noise / math.sqrt(1 - gamma**4)
    torch.testing.assert_close(fitted.mean(-1), mean, rtol=0, atol=0.4)
    torch.testing.assert_close(value, mean, rtol=0, atol=0.4)
    shape = torch.tensor(norm.ppf(midpoints(atoms).numpy())).float()
    wanted = mean[:, None] + spread * torch.tensor([[gamma], [1.0]]) * shape
    assert (fitted - wanted)[:, 2:-2].abs().max() < 0.15 * spread
    assert (fitted - wanted).abs().max() < 0.35 * spread


def test_time_limit_bootstraps_and_ruin_does_not(make_iql: MakeIQL, world: World) -> None:
    """Both states pay 1 and lead to themselves; the discount is .5 in A and 0 in B: values 2 and 1."""
    agent = make_iql(critic_lr=1e-2, tau=0.2)
    states, at = _two_states(world), torch.arange(32) % 2
    batch = _chain(states, at, at, torch.ones(32), torch.where(at == 0, 0.5, 0.0), known=False)
    for step in range(400):
        agent.update(batch, OfflineCoefficients(lr_factor=1 - step / 400, learn_policy=False))
    losses = implicit_losses(agent.networks, batch, 0.7)
    torch.testing.assert_close(losses.value[:2], torch.tensor([2.0, 1.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(losses.q[:2], torch.tensor([2.0, 1.0]), rtol=0, atol=0.05)


def test_target_is_centred_and_spread_by_the_next_action(
    make_iql: MakeIQL, world: World, make_batch: MakeBatch
) -> None:
    """y_j = r + gamma [V(s') + z_j - mean z]; without a known next action there is no spread."""
    networks, batch = make_iql().networks, make_batch(world)
    critic, target = networks.critic, networks.target

    def q_loss(batch: Batch) -> Tensor:
        return implicit_losses(networks, batch, 0.7).q_loss

    with torch.no_grad():
        atoms = critic.atoms(critic.embed(batch.state), batch.weights[:, None]).squeeze(1)
        z = target.atoms(target.embed(batch.next_state), batch.next_weights[:, None]).squeeze(1)
        z = torch.stack([row[row.mean(-1).argmin()] for row in z])
        v_next = critic.value(critic.embed(batch.next_state))

        def expected(shape: Tensor) -> Tensor:
            y = batch.reward[:, None] + batch.discount[:, None] * (v_next[:, None] + shape)
            error = y[:, None, None, :] - atoms[..., None]
            tau = midpoints(atoms.shape[-1])[:, None]
            huber = huber_of(error, atoms)
            return (torch.where(error < 0, 1 - tau, tau) * huber).mean(-1).sum(-1).mean()

        torch.testing.assert_close(q_loss(batch), expected(z - z.mean(-1, keepdim=True)))
        alone = batch._replace(has_next=torch.zeros_like(batch.has_next))
        torch.testing.assert_close(q_loss(alone), expected(torch.zeros_like(z)))


def test_value_regresses_the_lower_target(make_iql: MakeIQL, world: World, make_batch: MakeBatch) -> None:
    networks, batch = make_iql().networks, make_batch(world)
    losses = implicit_losses(networks, batch, 0.7)
    with torch.no_grad():
        target = networks.target
        both = target.atoms(target.embed(batch.state), batch.weights[:, None]).squeeze(1).mean(-1)
        u = both.amin(-1) - losses.value
    torch.testing.assert_close(losses.v_loss.detach(), (torch.where(u < 0, 0.3, 0.7) * u**2).mean())
    torch.testing.assert_close(losses.advantage, u)
    assert not losses.advantage.requires_grad


def test_values_alone_leave_the_actor_as_it_is(make_iql: MakeIQL, world: World, make_batch: MakeBatch) -> None:
    agent = make_iql()
    agent.update(make_batch(world), OfflineCoefficients())
    before = _weights(agent.networks)
    metrics = agent.update(make_batch(world, seed=1), VALUES_ONLY)
    assert "policy_loss" not in metrics
    after = agent.networks.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("actor."), name


def test_learning_rate_factor_of_zero_stops_learning(make_iql: MakeIQL, world: World, make_batch: MakeBatch) -> None:
    agent = make_iql()
    before = _weights(agent.networks)
    agent.update(make_batch(world), OfflineCoefficients(lr_factor=0.0))
    assert all(torch.equal(before[name], t) for name, t in agent.networks.state_dict().items())


def test_policy_moves_towards_the_better_portfolio(make_iql: MakeIQL, world: World) -> None:
    """Two portfolios in one state, one pays 2, the other nothing: extraction leans to the first, cloning does not."""
    held = torch.full((2, 4), 0.25, dtype=torch.float64)
    states = world.observe(torch.tensor([3, 3]), held, torch.zeros(2, dtype=torch.float64))
    at = torch.arange(64) % 2
    paid, unpaid = torch.tensor([0.85, 0.05, 0.05, 0.05]), torch.tensor([0.05, 0.85, 0.05, 0.05])
    batch = _chain(states, at, at, torch.where(at == 0, 2.0, 0.0), torch.zeros(64), known=False)
    batch = batch._replace(weights=torch.where((at == 0)[:, None], paid, unpaid))
    first: list[float] = []
    for beta in (3.0, 0.0):
        agent = make_iql(actor_lr=1e-2, critic_lr=1e-2, tau=0.2, beta=beta, normalise_advantage=False)
        for step in range(300):
            agent.update(batch, OfflineCoefficients(learn_policy=step >= 150))
        mean = agent.networks.actor(batch.state).mean[0].detach()
        first.append(float(mean[0] / (mean[0] + mean[1])))
    assert first[0] > 0.9
    assert first[1] == pytest.approx(0.5, abs=0.05)


def test_days_without_a_decision_teach_the_policy_nothing(
    make_iql: MakeIQL, calm_world: World, make_batch: MakeBatch
) -> None:
    agent = make_iql()
    before = _weights(agent.networks)
    metrics = agent.update(make_batch(calm_world), OfflineCoefficients())
    assert metrics["policy_loss"] == 0.0
    for name, tensor in agent.networks.actor.state_dict().items():
        assert torch.equal(tensor, before[f"actor.{name}"]), name


def test_width_stays_as_it_starts(make_iql: MakeIQL, world: World, make_batch: MakeBatch) -> None:
    """Phase 1 teaches the mean alone: the spread of the behaviours is no width to explore with."""
    agent = make_iql(actor_lr=1e-2)
    start = _weights(agent.networks)
    for step in range(5):
        agent.update(make_batch(world, seed=step), OfflineCoefficients())
    after = agent.networks.state_dict()
    changed = {
        name.split(".")[1] for name in start if name[:5] == "actor" and not torch.equal(start[name], after[name])
    }
    assert changed == {"experts", "gate", "rate"}
    sigma = agent.networks.actor(make_batch(world).state).log_sigma.detach().exp()
    torch.testing.assert_close(sigma, torch.full((32, 3), 0.3))
