import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from finflow.losses import anchor_loss, balance_loss, entropy_target, soft_value, temperature_loss

RATE = 0.02


def test_entropy_target_is_that_of_independent_gaussians() -> None:
    dims = torch.tensor([1.0, 4.0, 29.0])
    expected = dims * Normal(0.0, 0.147).entropy()
    torch.testing.assert_close(entropy_target(dims, 0.147), expected)
    assert float(entropy_target(torch.tensor(1.0), 1.0)) == pytest.approx(1.419, abs=1e-3)


def test_soft_value_by_hand() -> None:
    """Per dimension, so that alpha means the same for 2 names and for 100; a state without names is no 0 / 0."""
    alpha = torch.tensor(0.5, requires_grad=True)
    log_prob = torch.tensor([2.0, -4.0, 0.0], requires_grad=True)
    value = torch.tensor([3.0, 9.0, 0.0], requires_grad=True)
    soft = soft_value(alpha, log_prob, torch.tensor([2.0, 4.0, 0.0]), value, 3.0)
    assert soft.tolist() == [pytest.approx(3 - 3 * 0.5), pytest.approx(9 + 3 * 0.5), 0.0]
    soft.sum().backward()
    assert alpha.grad is None
    assert value.grad is not None
    torch.testing.assert_close(value.grad, torch.ones(3))
    assert log_prob.grad is not None
    torch.testing.assert_close(log_prob.grad, -3 * torch.tensor([0.25, 0.125, 0.5]))


@pytest.mark.parametrize(("entropy", "direction"), [(-3.0, 1), (-9.0, 1), (5.0, -1)])
def test_temperature_rises_below_the_entropy_target_and_falls_above(entropy: float, direction: int) -> None:
    log_alpha = torch.tensor(math.log(0.75), requires_grad=True)
    log_prob = torch.full((8,), -entropy, requires_grad=True)
    (slope,) = torch.autograd.grad(temperature_loss(log_alpha, log_prob, torch.zeros(8)), log_alpha)
    assert math.copysign(1, -float(slope)) == direction
    assert float(slope) == pytest.approx(entropy)


@pytest.mark.parametrize("n", [2, 5, 30, 100])
def test_entropy_coefficient_stays_bounded(n: int) -> None:
    """5,000 steps of actor and temperature on a free ln sigma, the value a bowl over portfolios."""
    generator = torch.Generator().manual_seed(n)
    dims = torch.tensor([float(n - 1)])
    target = entropy_target(dims, 0.147)
    log_sigma = torch.full((n - 1,), math.log(0.3))
    log_alpha, highest = torch.tensor(math.log(0.75)), 0.0
    noise = torch.randn(5000, n - 1, generator=generator)
    for eps in noise:
        leaf, temperature = log_sigma.requires_grad_(), log_alpha.requires_grad_()
        y = leaf.exp() * eps
        weights = torch.softmax(torch.nn.functional.pad(y, (0, 1)), -1)
        log_prob = (-0.5 * eps.square() - leaf - 0.5 * math.log(2 * math.pi)).sum()[None]
        value = -10.0 * (n * weights - 1).square().mean()[None]
        policy = -soft_value(temperature.exp(), log_prob, dims, value, 1.0).mean()
        loss = policy + temperature_loss(temperature, log_prob, target)
        down, cool = torch.autograd.grad(loss, (leaf, temperature))
        log_sigma = (log_sigma.detach() - RATE * n * down).clamp(-5.0, 0.0)
        log_alpha = log_alpha.detach() - RATE / n * cool
        highest = max(highest, float(log_alpha))
    assert highest < math.log(2.0)
    assert float(log_alpha) > math.log(0.01)
    entropy = (log_sigma + 0.5 * math.log(2 * math.pi * math.e)).sum()
    assert abs(float(entropy - target)) < 0.15 * (n - 1)


def test_anchor_is_zero_at_equality_and_positive_elsewhere() -> None:
    aim = torch.softmax(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), -1)
    assert float(anchor_loss(aim, aim)) == pytest.approx(0.0, abs=1e-7)
    assert float(anchor_loss(aim, aim.roll(1, 0))) > 0.01
    half, tilted = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    assert float(anchor_loss(half, tilted)) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert float(anchor_loss(tilted, half)) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


def test_anchor_ignores_names_that_the_aim_leaves_out_and_teaches_only_the_aim() -> None:
    aim = torch.tensor([[1.0, 0.0]], requires_grad=True)
    anchor = torch.tensor([[0.5, 0.5]], requires_grad=True)
    loss = anchor_loss(aim, anchor)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    loss.backward()
    assert anchor.grad is None
    assert aim.grad is not None
    assert torch.isfinite(aim.grad).all()


def _one_hot(*experts: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(experts), 5).float()


def test_balance_is_one_when_experts_share_the_batch_and_k_when_one_takes_all() -> None:
    assert float(balance_loss(torch.full((7, 5), 0.2))) == pytest.approx(1.0)
    assert float(balance_loss(_one_hot(2, 2, 2))) == pytest.approx(5.0)
    assert float(balance_loss(_one_hot(0, 1, 2, 3, 4))) == pytest.approx(1.0)
