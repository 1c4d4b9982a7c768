import math

import pytest
import torch

from finflow.losses import advantage_weight, effective_sample_share, weighted_cross_entropy


@pytest.mark.parametrize("normalise", [True, False])
def test_no_advantage_weighs_one(normalise: bool) -> None:
    weight = advantage_weight(torch.tensor([0.0, 1.0, -1.0, 0.0]), 3.0, 100.0, normalise)
    assert weight.shape == (4,)
    assert weight[0] == 1.0
    assert weight[3] == 1.0


def test_beta_multiplies_as_in_the_paper() -> None:
    advantage = torch.tensor([-1.0, 0.5, 1.0])
    expected = torch.exp(3.0 * advantage)
    torch.testing.assert_close(advantage_weight(advantage, 3.0, 100.0, False), expected)


def test_normalised_by_three_standard_deviations() -> None:
    advantage = torch.tensor([-2.0, 0.0, 2.0, 0.0])
    spread = math.sqrt(2.0)
    torch.testing.assert_close(
        advantage_weight(advantage, 3.0, 100.0, True), torch.exp(advantage / spread), rtol=1e-6, atol=0
    )


def test_normalised_weights_do_not_know_the_scale_of_the_reward() -> None:
    advantage = torch.randn(64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        advantage_weight(advantage, 3.0, 100.0, True), advantage_weight(1000 * advantage, 3.0, 100.0, True)
    )


def test_cap_is_reached_and_never_passed() -> None:
    one_outlier = torch.zeros(1000)
    one_outlier[7] = 5.0
    for weight in (advantage_weight(one_outlier, 3.0, 100.0, True), advantage_weight(one_outlier, 3.0, 100.0, False)):
        assert float(weight.max()) == pytest.approx(100.0, rel=1e-5)
        assert int(weight.argmax()) == 7


def test_constant_advantages_stay_finite() -> None:
    torch.testing.assert_close(advantage_weight(torch.zeros(5), 3.0, 100.0, True), torch.ones(5))


@pytest.mark.parametrize(
    ("weight", "share"),
    [([2.0] * 8, 1.0), ([1.0] + [0.0] * 7, 1 / 8), ([1.0] * 2 + [0.0] * 6, 1 / 4), ([1.0, 3.0], 0.8)],
)
def test_effective_sample_share_in_closed_form(weight: list[float], share: float) -> None:
    assert float(effective_sample_share(torch.tensor(weight))) == pytest.approx(share)


def test_cross_entropy_by_hand_row_by_row() -> None:
    """[B, 1] against [B] would broadcast to [B, B] and average the weights away."""
    weight = torch.tensor([1.0, 4.0])
    data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    mean = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    expected = -(1.0 * math.log(0.5) + 4.0 * math.log(0.1)) / 2
    loss = weighted_cross_entropy(weight, data, mean)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    unweighted = weighted_cross_entropy(torch.full((2,), 2.5), data, mean)
    assert abs(float(loss - unweighted)) > 0.5


def test_cross_entropy_is_least_at_the_weighted_mean_portfolio() -> None:
    generator = torch.Generator().manual_seed(1)
    data = torch.softmax(3 * torch.randn(16, 5, generator=generator, dtype=torch.float64), -1)
    data[0] = torch.tensor([1.0, 0, 0, 0, 0])  # weights of zero are allowed
    weight = torch.rand(16, generator=generator, dtype=torch.float64) * 5
    expected = (weight[:, None] * data).sum(0) / weight.sum()
    scores = torch.log(expected).requires_grad_()
    loss = weighted_cross_entropy(weight, data, torch.softmax(scores, 0).expand(16, 5))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.abs().max() < 1e-12
    elsewhere = torch.softmax(scores.detach() + 0.1 * torch.randn(5, generator=generator), 0)
    assert weighted_cross_entropy(weight, data, elsewhere.expand(16, 5)) > loss


def test_cross_entropy_stays_finite_where_the_policy_is_zero() -> None:
    mean = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = weighted_cross_entropy(torch.ones(1), torch.tensor([[0.0, 1.0]]), mean)
    loss.backward()
    assert torch.isfinite(loss)
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
