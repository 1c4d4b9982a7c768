"""Gradients along known paths: against finite differences through the ledger, and what a policy learns by them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from finflow.agents.base import Batch, OfflineCoefficients, Paths, discounted, walk
from finflow.agents.direct import Direct
from finflow.config.compose import load
from finflow.envs.ledger import Accounting, book, execute
from finflow.envs.simulator import World
from finflow.nn.networks import Networks
from finflow.schema.sections import DirectConfig

from .conftest import DAYS, SMALL, N

MakePaths = Callable[..., Paths]
DESKS = {
    "costs alone": Accounting(0.0015),
    "cap": Accounting(0.0015, max_weight=0.3),
    "minimum cash": Accounting(0.0015, min_cash=0.3),
    "turnover cap": Accounting(0.0015, max_turnover=0.25),
    "band": Accounting(0.0015, no_trade_band=0.36),
    "all": Accounting(0.0015, max_weight=0.5, min_cash=0.1, no_trade_band=0.3, max_turnover=0.8),
}
HORIZON = 5


def _earned(world: World, logits: Tensor) -> tuple[Tensor, list[bool]]:
    """Reward of the portfolios softmax(logits [H, n]) over H days, from 1/N, and whether each day traded."""
    drifted = torch.full((1, N), 1 / N, dtype=torch.float64)
    drawdown, total, moved = torch.zeros(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64), []
    for day in range(HORIZON):
        state = world.observe(torch.tensor([10 + day]), drifted, drawdown)
        outcome = world.live(torch.softmax(logits[day], -1)[None], state)
        moved.append(bool((outcome.executed - drifted).abs().sum() > 1e-9))
        total, drifted, drawdown = total + outcome.reward.sum(), outcome.drifted, outcome.drawdown
    return total, moved


@pytest.mark.parametrize("desk", DESKS)
def test_gradient_equals_finite_differences_through_the_ledger(world: World, desk: str) -> None:
    """Five days in float64, each trade's effect on all later days included; with a band some days do not trade."""
    reward = replace(world.reward, lambda_dd=2.0, lambda_risk=0.4)
    where = replace(world, accounting=DESKS[desk], reward=reward)
    logits = 1.5 * torch.randn(HORIZON, N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if desk == "band":
        moved = _earned(where, logits)[1]
        assert True in moved
        assert False in moved
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _earned(where, x)[0], (logits,), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_at_the_kink_of_costs_the_gradient_lies_between_both_sides(world: World) -> None:
    """Holding what drifted: to buy and to sell both cost, and the gradient charges neither."""
    drifted = torch.softmax(torch.arange(N, dtype=torch.float64), -1)[None]
    state = world.observe(torch.tensor([10]), drifted, torch.zeros(1, dtype=torch.float64))
    step = torch.zeros(1, N, dtype=torch.float64)
    step[0, 0], step[0, -1] = 1e-7, -1e-7  # out of cash

    def earned(target: Tensor) -> Tensor:
        return world.live(target, state).reward.sum()

    target = drifted.clone().requires_grad_()
    slope = float((torch.autograd.grad(earned(target), target)[0] * step).sum() / 1e-7)
    bought = float(earned(drifted + step) - earned(drifted)) / 1e-7
    sold = float(earned(drifted) - earned(drifted - step)) / 1e-7
    assert bought < slope < sold


def test_open_days_earn_the_same_by_the_short_way(world: World) -> None:
    target = torch.softmax(torch.randn(6, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64), -1)
    held = torch.full((6, N), 1 / N, dtype=torch.float64)
    state = world.observe(torch.arange(6), held, torch.zeros(6, dtype=torch.float64))
    for part, other in zip(world.live(target, state), world.live(target, state, all_open=True), strict=True):
        assert torch.equal(part, other)


def test_a_walk_earns_what_the_ledger_books(
    world: World, make_networks: Callable[..., Networks], make_paths: MakePaths
) -> None:
    """Day by day by hand: decide, execute, book, drift."""
    actor, paths = make_networks(2).actor, make_paths(4, HORIZON)
    with torch.no_grad():
        gone = walk(actor, world, paths, 0.0, torch.Generator())
        held, drawdown = paths.drifted.clone(), paths.drawdown.clone()
        for day in range(HORIZON):
            state = world.observe(paths.rows[:, day], held, drawdown)
            decision = actor(state)
            executed = execute(decision.mean.double(), held, world.status[state.row], state.decide, world.accounting)
            booked = book(executed, held, world.returns[state.row + 1], world.accounting.cost_rate)
            terms, drawdown = world.reward.components(
                booked.net, booked.turnover, world.log_benchmark[state.row + 1], drawdown
            )
            torch.testing.assert_close(gone.rewards[:, day].double(), sum(terms.values()), rtol=1e-5, atol=1e-5)
            held = booked.drifted
    torch.testing.assert_close(gone.reached[0], held)
    torch.testing.assert_close(gone.reached[1], drawdown)
    assert not gone.reached[0].requires_grad
    assert torch.equal(gone.final.row, paths.rows[:, -1])


def test_discounted_mean_by_hand() -> None:
    found = discounted(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([10.0]), 0.5)
    assert found.tolist() == [pytest.approx((1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 10) / 3)]


def test_value_beyond_the_horizon_reaches_the_trades_before_it(
    world: World, make_networks: Callable[..., Networks], make_paths: MakePaths
) -> None:
    """Two days by hand: what is held at the end moves with both days' decisions, the first one's through the drift."""
    actor, paths = make_networks(2).actor, make_paths(4, 2)
    rows, held, drawdown, _ = paths
    for day in range(2):
        state = world.observe(rows[:, day], held, drawdown)
        outcome = world.live(actor.members(state, width=False).mean, state)
        held, drawdown = outcome.drifted, outcome.drawdown
    gone = walk(actor, world, paths, 0.0, torch.Generator())
    for mine, theirs in ((held[:, 0], gone.final.drifted[:, 0]), (drawdown, gone.final.drawdown)):
        wanted, found = (
            torch.autograd.grad(each.sum(), actor.experts.out, retain_graph=True)[0] for each in (mine, theirs)
        )
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(found, wanted)


def _direct(make_networks: Callable[..., Networks], world: World, **changes: object) -> Direct:
    small = [word for word in SMALL if "batch_size" not in word]
    config = load("pretrain", ["algo=direct", *small, "algo.horizon=4"]).algo
    assert isinstance(config, DirectConfig)
    config = config.model_copy(update={"actor_lr": 1e-2, **changes})
    return Direct(make_networks(0, config.network), config, world, torch.Generator().manual_seed(0))


@pytest.fixture
def paying(make_world: Callable[..., World]) -> World:
    """The first name pays 1 % a day more than the others, whatever the day; trades cost 15 basis points."""
    base = make_world(turnover=0.0)
    returns = torch.zeros_like(base.returns)
    returns[:, 0] = 0.01
    features = torch.zeros_like(base.features)
    features[:, [0, 1, 2, 3], [0, 1, 2, 4]] = 1.0
    equal = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0])
    priors = base.priors.clone()
    priors[:, -1] = equal
    gain = torch.full((DAYS,), 0.01 / 3, dtype=torch.float64).log1p()
    return replace(base, features=features, returns=returns, log_benchmark=gain, priors=priors)


def test_what_pays_is_bought_and_the_anchor_holds_back(
    make_networks: Callable[..., Networks], paying: World, make_paths: MakePaths
) -> None:
    """Without an anchor the name that pays is held whole; a heavy one holds the benchmark's portfolio."""
    shares: list[float] = []
    for anchor in (0.0, 1e3):
        agent = _direct(make_networks, paying, prior_kl_coef=anchor)
        for step in range(60):
            agent.update(agent_batch(paying, make_paths(16, 4, seed=step)), OfflineCoefficients())
        state = paying.observe(torch.tensor([20]), torch.full((1, N), 0.25).double(), torch.zeros(1).double())
        shares.append(float(agent.networks.actor(state).aim[0, 0].detach()))
    assert shares[0] > 0.9
    assert shares[1] == pytest.approx(1 / 3, abs=0.02)


def agent_batch(world: World, paths: Paths):
    """Paths alone, as walkers hand them out."""

    state = world.observe(paths.rows[:, 0], paths.drifted, paths.drawdown)
    none = paths.drawdown.float()
    return Batch(state, paths.drifted, none, none, state, paths.drifted, none.bool(), paths)


def test_risk_aversion_keeps_the_tilt_small(
    make_networks: Callable[..., Networks], paying: World, make_paths: MakePaths
) -> None:
    """a - lambda a^2 / 2 is largest at a = 1 / lambda, where it is 1 / (2 lambda); all in the name is .66 a day."""
    where = replace(paying, reward=replace(paying.reward, lambda_risk=6.0), accounting=Accounting(0.0))
    agent = _direct(make_networks, where, prior_kl_coef=0.0)
    with torch.no_grad():
        agent.networks.actor.rate[2].bias.fill_(5.0)
    for step in range(150):
        agent.update(agent_batch(where, make_paths(16, 4, seed=step)), OfflineCoefficients(1 - step / 150))
    with torch.no_grad():
        gone = walk(agent.networks.actor, where, make_paths(16, 4, seed=999), 0.0, torch.Generator())
    found = float(gone.rewards[:, 1:].mean())
    assert 0.95 / 12 < found <= 1 / 12 + 1e-6
