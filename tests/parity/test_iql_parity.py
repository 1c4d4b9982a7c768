"""One step of IQL on the same weights and batch as d3rlpy's."""

import pytest
import torch
from d3rlpy.algos import IQL, IQLConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from torch import nn

from finflow.agents.iql import implicit_losses
from finflow.losses import advantage_weight
from finflow.nn.networks import Networks
from tests.parity.networks import BoxCritic, TanhGaussian, density
from tests.parity.pairs import ACTION, EXACT, GAMMA, HIDDEN, STATE, assert_gradients, batches, copy_layers, linears

BETA, CAP, EXPECTILE = 3.0, 100.0, 0.7
HUBER_OF_ONE_ATOM = 1 / 8
"""One atom at tau = 1/2 under the Huber loss is u^2 / 4 where |u| < 1, averaged over two critics; d3rlpy sums u^2."""


@pytest.fixture
def pair() -> tuple[IQL, Networks]:
    torch.manual_seed(0)
    encoder = VectorEncoderFactory(hidden_units=[HIDDEN, HIDDEN])
    theirs = IQLConfig(
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, value_encoder_factory=encoder,
        gamma=GAMMA, expectile=EXPECTILE, weight_temp=BETA, max_weight=CAP,
    ).create(device="cpu")  # fmt: skip
    theirs.create_impl((STATE,), ACTION)
    modules = theirs.impl.modules
    ours = Networks(TanhGaussian(STATE, ACTION, HIDDEN, free_sigma=True), BoxCritic(STATE, ACTION, HIDDEN, 1))
    with torch.no_grad():
        for q in modules.targ_q_funcs.parameters():  # a target that lags behind
            q += 0.05 * torch.randn_like(q)
        linears(modules.value_func)[-1].bias -= 0.3  # so that some advantages are positive
        modules.policy._logstd.fill_(0.3)
        ours.actor.sigma.fill_(0.3)
    copy_layers(modules.policy, ours.actor)
    copy_layers(modules.q_funcs, ours.critic.twins)
    copy_layers(modules.targ_q_funcs, ours.target.twins)
    copy_layers(modules.value_func, ours.critic.v)
    return theirs, ours


def test_value_and_critic_losses(pair: tuple[IQL, Networks]) -> None:
    """Rewards small enough that every error is within the Huber zone."""
    algo, networks = pair
    theirs, ours = batches(reward_scale=0.2)
    wanted = algo.impl.compute_critic_loss(theirs, algo.impl.compute_target(theirs))
    wanted.critic_loss.backward()
    found = implicit_losses(networks, ours, EXPECTILE)
    torch.testing.assert_close(found.v_loss, wanted.v_loss, **EXACT)
    torch.testing.assert_close(found.q_loss, HUBER_OF_ONE_ATOM * wanted.q_loss, **EXACT)
    (found.v_loss + found.q_loss).backward()
    assert_gradients(algo.impl.modules.value_func, networks.critic.v)
    assert_gradients(algo.impl.modules.q_funcs, networks.critic.twins, HUBER_OF_ONE_ATOM)


def test_beyond_the_huber_zone_the_critic_pulls_with_a_constant(pair: tuple[IQL, Networks]) -> None:
    """The documented difference: d3rlpy's squared error grows where ours is linear."""
    algo, networks = pair
    theirs, ours = batches(reward_scale=50.0)
    wanted = algo.impl.compute_critic_loss(theirs, algo.impl.compute_target(theirs)).q_loss
    q = [q(theirs.observations, theirs.actions).q_value for q in algo.impl.modules.q_funcs]
    y = theirs.rewards + GAMMA * (1 - theirs.terminals) * algo.impl.modules.value_func(theirs.next_observations)
    huber = sum(nn.functional.huber_loss(one, y) for one in q) / 4
    found = implicit_losses(networks, ours, EXPECTILE).q_loss
    torch.testing.assert_close(found, huber, **EXACT)
    assert found < 0.1 * HUBER_OF_ONE_ATOM * wanted


def test_policy_loss(pair: tuple[IQL, Networks]) -> None:
    """The paper's weight exp(beta A), capped, on the log-density of the same head."""
    algo, networks = pair
    theirs, ours = batches()
    wanted = algo.impl.compute_actor_loss(theirs, algo.impl.modules.policy(theirs.observations)).actor_loss
    wanted.backward()
    advantage = implicit_losses(networks, ours, EXPECTILE).advantage
    weight = advantage_weight(advantage, BETA, CAP, normalise=False)
    found = -(weight * density(networks.actor(ours.state), ours.weights)).mean()
    torch.testing.assert_close(found, wanted, **EXACT)
    found.backward()
    assert_gradients(algo.impl.modules.policy, networks.actor)
    torch.testing.assert_close(networks.actor.sigma.grad, algo.impl.modules.policy._logstd.grad, rtol=1e-4, atol=1e-6)


def test_capped_weights(pair: tuple[IQL, Networks]) -> None:
    algo, networks = pair
    theirs, ours = batches()
    beta = 20.0
    advantage = implicit_losses(networks, ours, EXPECTILE).advantage
    weight = advantage_weight(advantage, beta, CAP, normalise=False)
    assert (weight >= CAP - 1e-3).any()
    assert (weight < CAP / 2).any()
    algo.impl._weight_temp = beta
    wanted = algo.impl.compute_actor_loss(theirs, algo.impl.modules.policy(theirs.observations)).actor_loss
    found = -(weight * density(networks.actor(ours.state), ours.weights)).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_target_follows_alike(pair: tuple[IQL, Networks]) -> None:
    algo, networks = pair
    algo.impl.update_critic_target()
    networks.polyak(0.005)
    for theirs, ours in zip(algo.impl.modules.targ_q_funcs, networks.target.twins, strict=True):
        probe = torch.ones(1, STATE), torch.ones(1, ACTION)
        torch.testing.assert_close(ours(torch.cat(probe, -1)), theirs(*probe).q_value, **EXACT)
