import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from finflow.nn.actor import Decision, dimensions, entropy, from_logits, logits, sample

ALL = torch.ones(3, dtype=torch.bool)


def _decision(mean: Tensor, log_sigma: Tensor, tradable: Tensor) -> Decision:
    batch, n = mean.shape
    experts = mean[:, None].expand(batch, 5, n)
    return Decision(mean, mean, torch.full((batch, 5), 0.2), experts, torch.ones(batch), log_sigma, tradable)


@pytest.fixture
def masked() -> Decision:
    """Two states of four risky names and cash; in the first, names 1 and 2 cannot be traded."""
    tradable = torch.tensor([[True, False, False, True, True], [True] * 5])
    mean = torch.tensor([[0.2, 0.0, 0.0, 0.3, 0.5], [0.1, 0.2, 0.3, 0.15, 0.25]])
    return _decision(mean, torch.tensor([[-1.0, -0.3, -2.0, -1.5], [-1.2, -0.5, -0.8, -2.0]]), tradable)


def test_logits_invert_the_softmax_with_cash_as_reference() -> None:
    weights = torch.tensor([[0.2, 0.3, 0.5]])
    torch.testing.assert_close(logits(weights), torch.tensor([[math.log(0.4), math.log(0.6)]]))
    torch.testing.assert_close(from_logits(logits(weights), ALL[None]), weights)
    assert torch.isfinite(logits(torch.tensor([0.0, 1.0, 0.0]))).all()


def test_log_prob_is_the_sum_of_normal_log_probs(masked: Decision) -> None:
    weights, log_prob = sample(masked, 7, torch.Generator().manual_seed(0))
    assert weights.shape == (2, 7, 5)
    assert log_prob.shape == (2, 7)
    normal = Normal(logits(masked.mean)[:, None], masked.log_sigma.exp()[:, None])
    each = normal.log_prob(logits(weights))
    torch.testing.assert_close(log_prob[1], each[1].sum(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_prob[0], each[0][:, [0, 3]].sum(-1), rtol=1e-4, atol=1e-4)


def test_masked_names_have_no_dimension(masked: Decision) -> None:
    weights, log_prob = sample(masked, 50, torch.Generator().manual_seed(0))
    assert (weights[0, :, [1, 2]] == 0.0).all()
    assert (weights[1] > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 50))
    assert dimensions(masked).tolist() == [2.0, 4.0]
    wider = masked._replace(log_sigma=masked.log_sigma.clone())
    wider.log_sigma[0, [1, 2]] = 0.0
    assert torch.equal(entropy(wider), entropy(masked))
    other, other_log_prob = sample(wider, 50, torch.Generator().manual_seed(0))
    assert torch.equal(other, weights)
    assert torch.equal(other_log_prob, log_prob)


def test_entropy_is_that_of_the_normal(masked: Decision) -> None:
    each = Normal(0.0, masked.log_sigma.exp()).entropy()
    torch.testing.assert_close(entropy(masked), torch.stack([each[0, [0, 3]].sum(), each[1].sum()]))


def test_entropy_is_minus_the_mean_log_prob(masked: Decision) -> None:
    _, log_prob = sample(masked, 20_000, torch.Generator().manual_seed(2))
    torch.testing.assert_close(-log_prob.mean(1), entropy(masked), rtol=0, atol=0.03)


def test_samples_have_the_mean_and_deviation_of_the_decision(masked: Decision) -> None:
    weights, _ = sample(masked, 20_000, torch.Generator().manual_seed(1))
    y = logits(weights)[1]
    torch.testing.assert_close(y.mean(0), logits(masked.mean)[1], rtol=0, atol=0.02)
    torch.testing.assert_close(y.std(0), masked.log_sigma[1].exp(), rtol=0.02, atol=0)


def test_same_generator_same_samples(masked: Decision) -> None:
    first, second, third = (sample(masked, 3, torch.Generator().manual_seed(seed))[0] for seed in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_gradient_flows_through_the_sample() -> None:
    """Pathwise gradients against finite differences of the same draw; ln pi_y falls by 1 a unit of ln sigma."""
    mean = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    log_sigma = torch.tensor([[-1.0, -0.5]], dtype=torch.float64)
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def score(mean: Tensor, log_sigma: Tensor) -> Tensor:
        weights, _ = sample(_decision(mean, log_sigma, ALL[None]), 4, torch.Generator().manual_seed(3))
        return (weights @ direction).sum()

    assert torch.autograd.gradcheck(score, (mean.requires_grad_(), log_sigma.requires_grad_()))
    _, log_prob = sample(_decision(mean, log_sigma, ALL[None]), 4, torch.Generator().manual_seed(3))
    to_mean, to_sigma = torch.autograd.grad(log_prob.sum(), (mean, log_sigma), allow_unused=True)
    assert to_mean is None
    torch.testing.assert_close(to_sigma, torch.full((1, 2), -4.0, dtype=torch.float64))


@pytest.mark.parametrize("corner", [0, 1, 2])
def test_any_corner_of_the_simplex_can_be_reached(corner: int) -> None:
    y = torch.zeros(3)
    y[corner] = 40.0
    weights = from_logits(y[:2] - y[2], ALL)
    assert float(weights[corner]) > 1 - 1e-6
