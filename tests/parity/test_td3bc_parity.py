"""One step of TD3+BC with quantile critics on the same weights, batch and noise as d3rlpy's."""

from typing import Any, NamedTuple

import pytest
import torch
from d3rlpy.algos import TD3PlusBC, TD3PlusBCConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from torch import Tensor

from finflow.agents import td3bc
from finflow.agents.td3bc import TD3BC
from finflow.config.compose import load
from finflow.losses import td3bc_actor_loss
from finflow.nn.networks import Networks
from tests.parity.networks import BoxCritic, TanhGaussian
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

SEED = 3
TWINS = 2  # FinFlow takes the mean over the twins where d3rlpy takes the sum
ALPHA, NOISE, CLIP = 2.5, 0.2, 0.25  # so low a clip cuts a fifth of the noise


class Box:
    """The rules of a box of actions, in the place of the desk's."""

    def execute(self, action: Tensor, state: Tensor) -> Tensor:
        return action.clamp(-1.0, 1.0)


class Point(NamedTuple):
    """A deterministic policy's action in [-1, 1]; the other two are what a portfolio's policy says as well."""

    mean: Tensor
    log_sigma: Tensor
    tradable: None = None


class TanhPolicy(TanhGaussian):
    """The head without its width."""

    def forward(self, state: Tensor) -> Any:
        decision = super().forward(state)
        return Point(torch.tanh(decision.mean), decision.log_sigma)


def in_the_box(mean: Tensor, tradable: None, noise: Tensor, clip: float) -> Tensor:
    """The paper's smoothing, of actions; FinFlow's own is of logits."""
    return mean + noise.clamp(-clip, clip)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[TD3PlusBC, TD3BC]:
    torch.manual_seed(0)
    encoder = VectorEncoderFactory(hidden_units=[HIDDEN, HIDDEN])
    theirs = TD3PlusBCConfig(
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, gamma=GAMMA, alpha=ALPHA,
        q_func_factory=QRQFunctionFactory(n_quantiles=ATOMS),
        target_smoothing_sigma=NOISE, target_smoothing_clip=CLIP,
    ).create(device="cpu")  # fmt: skip
    theirs.create_impl((STATE,), ACTION)
    modules = theirs.impl.modules
    with torch.no_grad():
        for lagging in (modules.targ_q_funcs, modules.targ_policy):
            for weights in lagging.parameters():
                weights += 0.05 * torch.randn_like(weights)
        linears(modules.targ_policy)[-1].weight *= 10.0  # so that noise pushes some actions out of the box
    config = load("pretrain", ["algo=td3bc"]).algo
    config = config.model_copy(update={"alpha": ALPHA, "policy_noise": NOISE, "noise_clip": CLIP})
    networks = Networks(TanhPolicy(STATE, ACTION, HIDDEN, free_sigma=True), BoxCritic(STATE, ACTION, HIDDEN, ATOMS))
    ours = TD3BC(networks, config, Box(), torch.Generator().manual_seed(SEED))  # pyright: ignore[reportArgumentType]
    copy_layers(modules.policy, networks.actor)
    copy_layers(modules.targ_policy, ours.target_actor)
    copy_layers(modules.q_funcs, networks.critic.twins)
    copy_layers(modules.targ_q_funcs, networks.target.twins)
    monkeypatch.setattr(td3bc, "smoothed", in_the_box)
    return theirs, ours


@pytest.mark.parametrize("reward_scale", [0.2, 50.0])
def test_critic_loss(pair: tuple[TD3PlusBC, TD3BC], reward_scale: float) -> None:
    """The agent's own: noise, its clip, the target policy, the lower of the target critics."""
    algo, agent = pair
    theirs, ours = batches(reward_scale)
    torch.manual_seed(SEED)
    wanted = algo.impl.compute_critic_loss(theirs, algo.impl.compute_target(theirs)).critic_loss
    wanted.backward()
    loss, metrics = agent._critic_loss(ours, ours.state)  # the critic passes the state on
    torch.testing.assert_close(TWINS * ATOMS * metrics["q_loss"], wanted, **EXACT)
    loss.backward()
    assert_gradients(algo.impl.modules.q_funcs, agent.networks.critic.twins, 1 / TWINS)


def test_policy_loss(pair: tuple[TD3PlusBC, TD3BC]) -> None:
    """The first critic's value in units of its size, and the paper's squared distance where ours is a divergence."""
    algo, agent = pair
    theirs, ours = batches()
    wanted = algo.impl.compute_actor_loss(theirs, algo.impl.modules.policy(theirs.observations)).actor_loss
    wanted.backward()
    action = agent.networks.actor(ours.state).mean
    q = agent.networks.critic.atoms(ours.state, action[:, None]).squeeze(1)[:, 0].mean(-1)
    found = td3bc_actor_loss(q, (ours.weights - action).square().mean(-1), ALPHA)
    torch.testing.assert_close(found, wanted, **EXACT)
    found.backward()
    assert_gradients(algo.impl.modules.policy, agent.networks.actor)


def test_targets_follow_alike(pair: tuple[TD3PlusBC, TD3BC]) -> None:
    algo, agent = pair
    algo.impl.update_critic_target()
    algo.impl.update_actor_target()
    agent.networks.polyak(agent.config.tau)
    agent._follow()
    state, action = torch.ones(ROWS, STATE), torch.ones(ROWS, ACTION)
    for theirs, ours in zip(algo.impl.modules.targ_q_funcs, agent.networks.target.twins, strict=True):
        torch.testing.assert_close(ours(torch.cat([state, action], -1)), theirs(state, action).quantiles, **EXACT)
    torch.testing.assert_close(
        agent.target_actor(state).mean, algo.impl.modules.targ_policy(state).squashed_mu, **EXACT
    )
