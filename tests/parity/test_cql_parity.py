"""One step of CQL with quantile critics on the same weights, batch and noise as d3rlpy's."""

import math

import pytest
import torch
from d3rlpy.algos import CQL, CQLConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from torch import Tensor

from finflow.agents.base import Batch
from finflow.losses import cql_penalty
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
    linears,
)

SEED, SAMPLES, WEIGHT = 5, 10, 5.0


@pytest.fixture
def pair() -> tuple[CQL, Networks]:
    torch.manual_seed(0)
    encoder = VectorEncoderFactory(hidden_units=[HIDDEN, HIDDEN])
    theirs = CQLConfig(
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, gamma=GAMMA,
        q_func_factory=QRQFunctionFactory(n_quantiles=ATOMS), conservative_weight=WEIGHT, n_action_samples=SAMPLES,
        alpha_learning_rate=0.0, initial_alpha=1.0, alpha_threshold=0.0,
    ).create(device="cpu")  # fmt: skip
    theirs.create_impl((STATE,), ACTION)
    ours = Networks(TanhGaussian(STATE, ACTION, HIDDEN, free_sigma=False), BoxCritic(STATE, ACTION, HIDDEN, ATOMS))
    copy_layers(theirs.impl.modules.policy, ours.actor)
    copy_layers(theirs.impl.modules.q_funcs, ours.critic.twins)
    return theirs, ours


def sampled_values(networks: Networks, batch: Batch) -> tuple[Tensor, Tensor]:
    """q [B, 3m, 2] of m draws each of pi(s), pi(s') and the uniform law, and their log-densities [B, 3m].

    Drawn in d3rlpy's order from the same generator.
    """
    generator = torch.Generator().manual_seed(SEED)
    actions, densities = [], []
    with torch.no_grad():
        for state in (batch.state, batch.next_state):
            noise = torch.normal(torch.zeros(SAMPLES, ROWS, ACTION), 1.0, generator=generator)
            action, log_prob = sample(networks.actor(state), noise)
            actions.append(action.transpose(0, 1))
            densities.append(log_prob.transpose(0, 1))
        actions.append(torch.zeros(ROWS * SAMPLES, ACTION).uniform_(-1, 1, generator=generator).view(ROWS, SAMPLES, -1))
        densities.append(torch.full((ROWS, SAMPLES), ACTION * math.log(0.5)))
    return networks.critic.atoms(batch.state, torch.cat(actions, 1)).mean(-1), torch.cat(densities, 1)


def test_penalty(pair: tuple[CQL, Networks]) -> None:
    """FinFlow's penalty without its two documented choices is d3rlpy's, gradients included.

    The choices: the data's own action takes part in the log-sum-exp, and samples carry no importance weights. The
    second is undone by handing in q - ln mu, the first by taking exp(q_data) out of the sum again.
    """
    algo, networks = pair
    theirs, ours = batches()
    torch.manual_seed(SEED)
    target = torch.zeros(ROWS, ATOMS)
    wanted = algo.impl.compute_critic_loss(theirs, target).conservative_loss
    wanted.backward()
    q, log_density = sampled_values(networks, ours)
    data = networks.critic.atoms(ours.state, ours.weights[:, None]).squeeze(1).mean(-1)
    per_critic = []
    for twin in range(2):
        values, own = q[..., twin : twin + 1] - log_density[..., None], data[:, twin : twin + 1]
        penalty = cql_penalty(values, own)
        everything = penalty + math.log(values.shape[1] + 1) + own.squeeze(1)
        samples_alone = everything + torch.log1p(-torch.exp(own.squeeze(1) - everything))
        per_critic.append((samples_alone - own.squeeze(1)).mean())
    found = WEIGHT * sum(per_critic)
    torch.testing.assert_close(found, wanted, **EXACT)
    found.backward()
    assert_gradients(algo.impl.modules.q_funcs, networks.critic.twins)


def test_equal_values_cost_nothing(pair: tuple[CQL, Networks]) -> None:
    """The constant that FinFlow takes off: its penalty is 0 where no action is preferred, d3rlpy's is not."""
    algo, networks = pair
    theirs, ours = batches()
    for twin, other in zip(networks.critic.twins, algo.impl.modules.q_funcs, strict=True):
        torch.nn.init.zeros_(twin[-1].weight)
        torch.nn.init.zeros_(linears(other)[-1].weight)
    with torch.no_grad():
        q, _ = sampled_values(networks, ours)
        data = networks.critic.atoms(ours.state, ours.weights[:, None]).squeeze(1).mean(-1)
        torch.testing.assert_close(cql_penalty(q, data), torch.zeros(ROWS), **EXACT)
        assert algo.impl.compute_critic_loss(theirs, torch.zeros(ROWS, ATOMS)).conservative_loss > 1.0
