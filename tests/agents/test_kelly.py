"""A problem with a known answer: by value gradients, and by the whole of phase 2."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finflow.agents.base import Batch, OfflineCoefficients, OnlineCoefficients, Paths
from finflow.agents.bcell import BCell
from finflow.agents.direct import Direct
from finflow.config.compose import load
from finflow.envs.simulator import World
from finflow.nn.networks import Networks
from finflow.schema.sections import DirectConfig
from tests.shapes import small_network

from .conftest import SMALL

MEAN = np.array([0.04, -0.02])
COVARIANCE = np.array([[0.09, 0.02], [0.02, 0.04]])
OPTIMUM = np.array([0.44, 0.0, 0.56])


def _growth(weights: NDArray[np.float64]) -> float:
    """E ln(w . gross return) of one lognormal period, by Gauss-Hermite quadrature; cash earns nothing."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(20)
    pairs = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2) @ np.linalg.cholesky(COVARIANCE).T
    chance = np.outer(mass, mass).ravel() / mass.sum() ** 2
    gross = np.exp(MEAN - 0.5 * np.diag(COVARIANCE) + pairs)
    return float(chance @ np.log(gross @ weights[:2] + weights[2]))


def test_the_known_optimum() -> None:
    best = max(
        ((a, b, 1 - a - b) for a in np.arange(0, 1.01, 0.04) for b in np.arange(0, 1.01 - a, 0.04)),
        key=lambda w: _growth(np.array(w)),
    )
    assert best == pytest.approx(tuple(OPTIMUM))
    assert _growth(np.array(best)) == pytest.approx(0.00877, abs=1e-4)
    assert _growth(np.full(3, 1 / 3)) == pytest.approx(-0.0027, abs=3e-4)


@pytest.fixture
def bandit(make_world: Callable[..., World]) -> World:
    """20,000 such periods in any order, free trades, uniform priors, features that only tell the names apart."""
    days, rng = 20_000, np.random.default_rng(1)
    shocks = rng.standard_normal((days // 2, 2)) @ np.linalg.cholesky(COVARIANCE).T
    shocks = np.concatenate([shocks, -shocks])[rng.permutation(days)]
    gross = np.exp(MEAN - 0.5 * np.diag(COVARIANCE) + shocks)
    base = make_world(0.0, cost_rate=0.0, turnover=0.0)
    features = torch.zeros(days, 3, 5)
    features[:, 0, :4], features[:, 1, :4], features[:, 2, 4] = 1.0, -1.0, 1.0
    return replace(
        base,
        features=features,
        market=torch.zeros(days, 2),
        status=base.status[:1, :3].repeat(days, 1),
        returns=torch.from_numpy(np.concatenate([gross - 1, np.zeros((days, 1))], 1)),
        log_benchmark=torch.zeros(days, dtype=torch.float64),
        decision=torch.ones(days, dtype=torch.bool),
        priors=torch.full((days, 6, 3), 1 / 3),
        reward=replace(base.reward, scale=10.0, lambda_cvar=0.0),
    )


@pytest.mark.parametrize("seed", range(3))
def test_value_gradients_learn_the_kelly_portfolio(
    make_networks: Callable[..., Networks], bandit: World, seed: int
) -> None:
    """The ledger's own gradient of the log return, day by day and without a critic: regret below 5 %."""
    words = ["algo=direct", *(word for word in SMALL if "batch_size" not in word), "algo.horizon=1", "algo.lr=1e-2"]
    config = load("pretrain", [*words, "algo.prior_kl_coef=0", "algo.network.embed_dim=32"]).algo
    assert isinstance(config, DirectConfig)
    agent = Direct(make_networks(seed, config.network), config, bandit, torch.Generator().manual_seed(seed))
    generator, nothing = torch.Generator().manual_seed(seed), torch.zeros(512, dtype=torch.float64)
    held = torch.full((512, 3), 1 / 3, dtype=torch.float64)
    updates = 400
    for step in range(updates):
        row = torch.randint(1, 19_990, (512, 1), generator=generator)
        paths = Paths(row + torch.arange(2), held, nothing, all_open=True)
        state = bandit.observe(row[:, 0], held, nothing)
        batch = Batch(state, held, nothing, nothing, state, held, nothing.bool(), paths)
        agent.update(batch, OfflineCoefficients(lr_factor=1 - step / updates))
    decision = agent.networks.actor(state)
    assert _growth(decision.aim[0].detach().double().numpy()) > 0.95 * _growth(OPTIMUM)
    assert decision.rate.mean() > 0.9


MANY = (2000, 2048)
"""Updates and rows of each. A period's return is fifteen times its best growth: four million rows settle the portfolio
to 5 % of it whatever the seed."""


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "updates", "rows"), [(seed, *MANY) for seed in range(5)])
def test_fine_tuning_learns_the_kelly_portfolio(
    make_bcell: Callable[..., BCell],
    bandit: World,
    make_batch: Callable[..., Batch],
    seed: int,
    updates: int,
    rows: int,
) -> None:
    """Priors know nothing here; the critic learns growth from relabelled days, the actor climbs it: regret below 5 %.

    32 atoms: the mean of 8 midpoint quantiles leaves out so much of the tails that cash looks better than it is.
    """
    network = small_network(n_quantiles=32)
    rate = 1e-2
    agent = make_bcell(seed, bandit, critic_lr=rate, actor_lr=5e-3, alpha_init=1e-3, tau=0.05, network=network)
    with torch.no_grad():
        agent.networks.actor.sigma.bias.fill_(-1.0)
    for step in range(updates):
        now = OnlineCoefficients(
            0.05, anchor=0.0, temperature=1.0, balance=0.0, cql=0.0, learn_policy=step >= updates // 2
        )
        agent.base_lr[0] = rate * (1 - step / updates)  # of the critic
        agent.update(make_batch(bandit, rows, seed=step, gamma=0.0, relabel=1.0), now)
    decision = agent.act(make_batch(bandit, 64, seed=9999).state)
    aim = decision.aim.mean(0).double().numpy()
    assert _growth(aim) > 0.95 * _growth(OPTIMUM)
    assert _growth(np.full(3, 1 / 3)) < 0
    assert decision.rate.mean() > 0.9
