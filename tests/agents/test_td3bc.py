from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients
from finflow.agents.td3bc import TD3BC
from finflow.envs.simulator import State, World
from finflow.losses import atom_spread, expectile_loss, lower_mean, quantile_loss
from finflow.nn.actor import from_logits, logits

MakeTD3BC = Callable[..., TD3BC]
MakeBatch = Callable[..., Batch]


def _copy(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _moved(module: torch.nn.Module, before: dict[str, Tensor]) -> bool:
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_policy_and_targets_are_delayed(make_td3bc: MakeTD3BC, world: World, make_batch: MakeBatch) -> None:
    agent = make_td3bc(policy_delay=3)
    parts = {"critic": agent.networks.critic, "actor": agent.networks.actor, "target": agent.networks.target}
    parts["target_actor"] = agent.target_actor
    for update in range(1, 7):
        before = {name: _copy(part) for name, part in parts.items()}
        metrics = agent.update(make_batch(world, seed=update), OfflineCoefficients())
        moved = {name for name, part in parts.items() if _moved(part, before[name])}
        assert moved == (set(parts) if update % 3 == 0 else {"critic"}), update
        assert ("policy_loss" in metrics) == (update % 3 == 0)


def test_the_target_policy_follows_by_tau(make_td3bc: MakeTD3BC, world: World, make_batch: MakeBatch) -> None:
    agent = make_td3bc(policy_delay=1, tau=0.1)
    start = _copy(agent.target_actor)
    agent.update(make_batch(world), OfflineCoefficients())
    for name, online in agent.networks.actor.named_parameters():
        expected = start[name] + 0.1 * (online.detach() - start[name])
        torch.testing.assert_close(agent.target_actor.state_dict()[name], expected)


def test_values_alone_leave_the_policy_as_it_is(make_td3bc: MakeTD3BC, world: World, make_batch: MakeBatch) -> None:
    agent = make_td3bc(policy_delay=1)
    before = _copy(agent.networks.actor)
    agent.update(make_batch(world), OfflineCoefficients(learn_policy=False))
    assert not _moved(agent.networks.actor, before)
    assert not _moved(agent.target_actor, before)


def test_critic_target_is_the_lower_target_at_the_smoothed_target_policy(
    make_td3bc: MakeTD3BC, world: World, make_batch: MakeBatch
) -> None:
    """y_j = r + gamma z_j(s', execute(pi'(s') + clipped noise)), and V as IQL fits it."""
    agent, batch = make_td3bc(policy_noise=0.4, noise_clip=0.3), make_batch(world)
    critic, target = agent.networks.critic, agent.networks.target
    with torch.no_grad():
        for weight in agent.target_actor.parameters():
            weight.add_(0.2)  # so that it is not the online policy
        target.out_bias[1] += torch.linspace(-60.0, 40.0, 8)
        kept = agent.generator.get_state()
        _, metrics = agent._critic_loss(batch, critic.embed(batch.state))
        agent.generator.set_state(kept)
        noise = (0.4 * torch.randn(32, 3, generator=agent.generator)).clamp(-0.3, 0.3)
        following = agent.target_actor(batch.next_state)
        proposal = from_logits(logits(following.mean) + noise, following.tradable)
        executed = world.execute(proposal, batch.next_state).float()
        z = lower_mean(target.atoms(target.embed(batch.next_state), executed[:, None]).squeeze(1))
        y = batch.reward[:, None] + batch.discount[:, None] * z
        embedding = critic.embed(batch.state)
        atoms = critic.atoms(embedding, batch.weights[:, None]).squeeze(1)
        q = target.atoms(target.embed(batch.state), batch.weights[:, None]).squeeze(1).mean(-1).amin(-1)
        torch.testing.assert_close(
            metrics["q_loss"], quantile_loss(atoms, y[:, None].expand_as(atoms), atom_spread(atoms)) / 8
        )
        torch.testing.assert_close(metrics["v_loss"], expectile_loss(q - critic.value(embedding), 0.7))


def test_policy_loss_by_hand(make_td3bc: MakeTD3BC, world: World, make_batch: MakeBatch) -> None:
    agent, batch = make_td3bc(), make_batch(world)
    critic = agent.networks.critic
    embedding = tuple(part.detach() for part in critic.embed(batch.state))
    loss, _ = agent._policy_loss(batch, embedding)
    with torch.no_grad():
        mean = agent.networks.actor(batch.state).mean
        executed = world.execute(mean, batch.state).float()
        q = critic.atoms(embedding, executed[:, None])[:, 0, 0].mean(-1)
        cloning = (batch.weights * (batch.weights / mean).log()).sum(-1)
    torch.testing.assert_close(loss.detach(), cloning.mean() - 2.5 * q.mean() / q.abs().mean())
    loss.backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert all(parameter.requires_grad for parameter in critic.parameters())


def test_days_without_a_decision_teach_the_policy_nothing(
    make_td3bc: MakeTD3BC, calm_world: World, make_batch: MakeBatch
) -> None:
    agent = make_td3bc(0, calm_world, policy_delay=1)
    before = _copy(agent.networks.actor)
    agent.update(make_batch(calm_world), OfflineCoefficients())
    assert not _moved(agent.networks.actor, before)


def test_policy_leans_to_the_better_portfolio_and_clones_without_a_critic(make_td3bc: MakeTD3BC, world: World) -> None:
    """Two portfolios in one state, one pays 2, the other nothing."""
    held = torch.full((64, 4), 0.25, dtype=torch.float64)
    state = world.observe(torch.full((64,), 3), held, torch.zeros(64, dtype=torch.float64))
    better = torch.arange(64) % 2 == 0
    paid, unpaid = torch.tensor([0.85, 0.05, 0.05, 0.05]), torch.tensor([0.05, 0.85, 0.05, 0.05])
    weights = torch.where(better[:, None], paid, unpaid)
    nothing = torch.zeros(64)
    reward = torch.where(better, 2.0, 0.0)
    batch = Batch(state, weights, reward, nothing, State(*state), weights, nothing.bool())
    first: list[float] = []
    for alpha in (5.0, 0.0):
        agent = make_td3bc(actor_lr=1e-2, critic_lr=1e-2, tau=0.2, alpha=alpha, policy_delay=1)
        for step in range(300):
            agent.update(batch, OfflineCoefficients(learn_policy=step >= 150))
        mean = agent.networks.actor(batch.state).mean[0].detach()
        first.append(float(mean[0] / (mean[0] + mean[1])))
    assert first[0] > 0.8
    assert first[1] == pytest.approx(0.5, abs=0.05)
