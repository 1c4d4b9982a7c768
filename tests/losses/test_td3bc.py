import pytest
import torch
from torch.distributions import Categorical, kl

from finflow.losses import kl_divergence, smoothed, td3bc_actor_loss


def test_actor_loss_by_hand() -> None:
    """lambda = 2.5 / 3 is a number, not a function of q: its gradient is -lambda / B."""
    q = torch.tensor([2.0, -4.0], requires_grad=True)
    loss = td3bc_actor_loss(q, torch.tensor([0.3, 0.1]), 2.5)
    assert float(loss.detach()) == pytest.approx(0.2 + 2.5 / 3)
    loss.backward()
    assert q.grad is not None
    torch.testing.assert_close(q.grad, torch.full((2,), -2.5 / 6))


def test_the_scale_of_the_reward_does_not_matter() -> None:
    q, cloning = torch.tensor([2.0, -4.0]), torch.tensor([0.3, 0.1])
    torch.testing.assert_close(td3bc_actor_loss(q, cloning, 2.5), td3bc_actor_loss(1000 * q, cloning, 2.5))
    assert float(td3bc_actor_loss(q, cloning, 0.0)) == pytest.approx(0.2)
    assert float(td3bc_actor_loss(torch.zeros(2), cloning, 2.5)) == pytest.approx(0.2)


def test_cloning_is_the_divergence_of_the_data() -> None:
    data = torch.softmax(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), -1)
    mean = data.roll(1, 0)
    expected = kl.kl_divergence(Categorical(data), Categorical(mean))
    torch.testing.assert_close(kl_divergence(data, mean), expected)
    torch.testing.assert_close(kl_divergence(data, data), torch.zeros(5))


def test_names_that_the_data_leave_out_cost_nothing_and_give_no_nan() -> None:
    mean = torch.tensor([[0.5, 0.5]], requires_grad=True)
    divergence = kl_divergence(torch.tensor([[1.0, 0.0]]), mean)
    assert float(divergence.detach()) == pytest.approx(0.6931472)
    divergence.sum().backward()
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, torch.tensor([[-2.0, 0.0]]))


def test_smoothing_moves_odds_by_clipped_noise_over_tradable_names() -> None:
    mean, everything = torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor([[True, True, True]])
    torch.testing.assert_close(smoothed(mean, everything, torch.zeros(1, 2), 0.5), mean)
    moved = smoothed(mean, everything, torch.tensor([[0.3, -9.0]]), 0.5)
    odds = torch.tensor([[0.4 * 2.718281828**0.3, 0.6 * 2.718281828**-0.5, 1.0]])
    torch.testing.assert_close(moved, odds / odds.sum())
    shut = smoothed(torch.tensor([[0.4, 0.0, 0.6]]), torch.tensor([[True, False, True]]), torch.ones(1, 2), 0.5)
    assert float(shut[0, 1]) == 0.0
    assert float(shut.sum()) == pytest.approx(1.0)
