"""One step of SAC with quantile critics on the same weights, batch and noise as d3rlpy's."""

import pytest
import torch
from d3rlpy.algos import SAC, SACConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.models.torch.parameters import get_parameter
from torch import Tensor

from finflow.agents.base import Batch
from finflow.losses import lower_mean, quantile_huber_loss, soft_value, temperature_loss
from finflow.nn.networks import Networks
from tests.parity.networks import BoxCritic, TanhGaussian, sample
from tests.parity.pairs import (
    ACTION,
    ATOMS,
    EXACT,
    GAMMA,
    HIDDEN,
    ROWS,
    STATE,
    assert_gradients,
    batches,
    copy_layers,
)

SEED = 3
TWINS = 2  # FinFlow takes the mean over the twins where d3rlpy takes the sum


def noise() -> Tensor:
    """What d3rlpy draws first from torch's generator after `manual_seed(SEED)`."""
    return torch.normal(torch.zeros(ROWS, ACTION), 1.0, generator=torch.Generator().manual_seed(SEED))


@pytest.fixture
def pair() -> tuple[SAC, Networks]:
    return sac_pair(0.75)


def sac_pair(temperature: float) -> tuple[SAC, Networks]:
    torch.manual_seed(0)
    encoder = VectorEncoderFactory(hidden_units=[HIDDEN, HIDDEN])
    theirs = SACConfig(
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, gamma=GAMMA,
        q_func_factory=QRQFunctionFactory(n_quantiles=ATOMS), initial_temperature=temperature,
    ).create(device="cpu")  # fmt: skip
    theirs.create_impl((STATE,), ACTION)
    modules = theirs.impl.modules
    with torch.no_grad():
        for q in modules.targ_q_funcs.parameters():
            q += 0.05 * torch.randn_like(q)
    ours = Networks(TanhGaussian(STATE, ACTION, HIDDEN, free_sigma=False), BoxCritic(STATE, ACTION, HIDDEN, ATOMS))
    copy_layers(modules.policy, ours.actor)
    copy_layers(modules.q_funcs, ours.critic.twins)
    copy_layers(modules.targ_q_funcs, ours.target.twins)
    return theirs, ours


def target_atoms(networks: Networks, batch: Batch) -> Tensor:
    """r + gamma z(s', a'), a' ~ pi, of the target critic with the lower mean; no entropy in the backup."""
    with torch.no_grad():
        following, _ = sample(networks.actor(batch.next_state), noise())
        z = lower_mean(networks.target.atoms(batch.next_state, following[:, None]).squeeze(1))
        return batch.reward[:, None] + batch.discount[:, None] * z


@pytest.mark.parametrize("reward_scale", [0.2, 50.0])
def test_critic_loss(reward_scale: float) -> None:
    """At a temperature of (almost) nothing d3rlpy's soft backup is ours."""
    algo, networks = sac_pair(1e-10)
    theirs, ours = batches(reward_scale)
    torch.manual_seed(SEED)
    wanted = algo.impl.compute_critic_loss(theirs, algo.impl.compute_target(theirs)).critic_loss
    wanted.backward()
    atoms = networks.critic.atoms(ours.state, ours.weights[:, None]).squeeze(1)
    y = target_atoms(networks, ours)
    found = quantile_huber_loss(atoms, y[:, None].expand_as(atoms))
    torch.testing.assert_close(TWINS * found, wanted, **EXACT)
    found.backward()
    assert_gradients(algo.impl.modules.q_funcs, networks.critic.twins, 1 / TWINS)


def test_entropy_in_the_backup_is_the_whole_difference(pair: tuple[SAC, Networks]) -> None:
    """The documented difference: d3rlpy subtracts alpha ln pi from every atom of the target, FinFlow does not."""
    algo, networks = pair
    theirs, ours = batches()
    torch.manual_seed(SEED)
    soft = algo.impl.compute_target(theirs)
    _, log_prob = sample(networks.actor(ours.next_state), noise())
    y = ours.reward[:, None] + ours.discount[:, None] * (soft + 0.75 * log_prob[:, None])
    torch.testing.assert_close(target_atoms(networks, ours), y, **EXACT)


def test_actor_and_temperature_losses(pair: tuple[SAC, Networks]) -> None:
    """With d = 1 and S = 1, FinFlow's two units, the losses are the same.

    d3rlpy's temperature loss is in alpha, ours in ln alpha: alpha times ours is its gradient.
    """
    algo, networks = pair
    theirs, ours = batches()
    gradients: list[Tensor] = []
    temperature = get_parameter(algo.impl.modules.log_temp)
    algo.impl.modules.temp_optim.step = lambda *_: gradients.append(temperature.grad.flatten()[0].clone())  # no step
    log_alpha = temperature.detach().flatten()[0].clone().requires_grad_()
    torch.manual_seed(SEED)
    wanted = algo.impl.compute_actor_loss(theirs, algo.impl.modules.policy(theirs.observations))
    wanted.actor_loss.backward()
    action, log_prob = sample(networks.actor(ours.state), noise())
    value = networks.critic.atoms(ours.state, action[:, None]).squeeze(1).mean(-1).amin(-1)
    found = -soft_value(log_alpha.exp(), log_prob, torch.ones(ROWS), value, 1.0).mean()
    torch.testing.assert_close(found, wanted.actor_loss, **EXACT)
    found.backward()
    assert_gradients(algo.impl.modules.policy, networks.actor)
    temperature_loss(log_alpha, log_prob, torch.full((ROWS,), -float(ACTION))).backward()
    torch.testing.assert_close(log_alpha.exp() * log_alpha.grad, gradients[0], **EXACT)
