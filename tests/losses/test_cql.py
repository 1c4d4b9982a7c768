import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from finflow.losses.cql import calibrate, cql_penalty, scaled_alpha
from finflow.losses.quantile import midpoints, quantile_huber_loss

ATOMS = 32


@pytest.mark.parametrize("constant", [0.0, -7.5, 120.0])
def test_constant_values_are_not_penalised(constant: float) -> None:
    q = torch.full((3, 30, 2), constant, dtype=torch.float64)
    penalty = cql_penalty(q, q[:, 0])
    assert penalty.shape == (3,)
    assert penalty.abs().max() < 1e-12


def test_penalty_by_hand_with_the_data_action_among_the_others() -> None:
    sampled = torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])
    data = torch.tensor([[2.0, 1.0]])
    first = math.log(math.exp(1) + math.exp(3) + math.exp(2)) - math.log(3) - 2.0
    second = math.log(1 + 1 + math.exp(1)) - math.log(3) - 1.0
    assert float(cql_penalty(sampled, data)) == pytest.approx((first + second) / 2, rel=1e-6)


def test_calibration_bounds_policy_samples_below_by_the_value() -> None:
    q = torch.tensor([[[1.0, 5.0], [2.0, -1.0]], [[-3.0, 0.0], [4.0, 4.0]]], requires_grad=True)
    bounded = calibrate(q, torch.tensor([1.5, 0.5]))
    assert bounded.tolist() == [[[1.5, 5.0], [2.0, 1.5]], [[0.5, 0.5], [4.0, 4.0]]]
    bounded.sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]


def test_scale_is_linear_in_alpha_and_blind_to_the_reward() -> None:
    base = scaled_alpha(5.0, 32, 0.8, 7.0)
    assert base == pytest.approx(0.5 * 32 * 0.8 / (2.5 * 7.0))
    assert scaled_alpha(10.0, 32, 0.8, 7.0) == pytest.approx(2 * base)
    assert scaled_alpha(5.0, 32, 80.0, 700.0) == pytest.approx(base)
    assert scaled_alpha(0.0, 32, 0.8, 7.0) == 0.0
    assert math.isfinite(scaled_alpha(5.0, 32, 0.8, 0.0))


def _descend(atoms: Tensor, target: Tensor, penalty: object, steps: int, rate: float) -> Tensor:
    """Gradient descent on atoms [A + 1, N], the last row the data's: quantile pull there, CQL over all."""
    assert callable(penalty)
    atoms = atoms.clone().requires_grad_()
    for _ in range(steps):
        q = atoms.mean(-1)
        loss = quantile_huber_loss(atoms[-1], target) + penalty(q[None, :-1, None], q[None, -1:]).mean()
        (gradient,) = torch.autograd.grad(loss, atoms)
        atoms = (atoms.detach() - rate * gradient).requires_grad_()
    return atoms.detach()


def test_data_action_in_the_log_sum_exp_bounds_the_drift() -> None:
    target = 10 * torch.tensor(norm.ppf((torch.arange(200) + 0.5).numpy() / 200))
    start = 10 * torch.tensor(norm.ppf(midpoints(ATOMS).double().numpy())).expand(4, ATOMS)

    def without(sampled: Tensor, data: Tensor) -> Tensor:
        return (torch.logsumexp(sampled, 1) - math.log(sampled.shape[1]) - data).mean(-1)

    def drift(penalty: object) -> tuple[float, float]:
        first = _descend(start, target, lambda q, d: 5.0 * penalty(q, d), 1500, 1.0)  # type: ignore[operator]
        second = _descend(first, target, lambda q, d: 5.0 * penalty(q, d), 1500, 1.0)  # type: ignore[operator]
        return float(first[-1].max() - start[-1].max()), float(second[-1].max() - first[-1].max())

    bounded, later = drift(cql_penalty)
    assert abs(bounded) < 10
    assert abs(later) < 2
    free, free_later = drift(without)
    assert free > 100
    assert free_later > 0.8 * free


@pytest.mark.parametrize("critics", [1, 2])
@pytest.mark.parametrize("alpha", [5.0, 10.0])
def test_an_alpha_of_ten_moves_the_median_by_one_advantage(critics: int, alpha: float) -> None:
    """Of the data's action, where the penalty's mass lies elsewhere; however many critics are averaged."""
    spread, advantage = 20.0, 2.0
    quantiles = torch.tensor(norm.ppf(midpoints(ATOMS).double().numpy())) * spread
    target = torch.tensor(norm.ppf((torch.arange(256) + 0.5).numpy() / 256)) * spread
    weight = scaled_alpha(alpha, ATOMS, advantage, spread)
    unsupported = torch.full((1, 30, critics), 1e4, dtype=torch.float64)
    atoms = quantiles.repeat(1, critics, 1).requires_grad_()
    optimiser = torch.optim.Adam([atoms], lr=0.1)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
        optimiser.zero_grad()
        loss = quantile_huber_loss(atoms, target.expand(1, critics, 256))
        (loss + weight * cql_penalty(unsupported, atoms.mean(-1)).mean()).backward()
        optimiser.step()
    moved = atoms.detach()[0, 0, 15:17].mean() - quantiles[15:17].mean()
    assert float(moved) == pytest.approx(alpha / 10 * advantage, rel=0.15)
