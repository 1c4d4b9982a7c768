import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from finflow.losses import NETWORK_GAIN, cql_penalty, midpoints, quantile_huber_loss, scaled_alpha

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


def _slopes(sampled: Tensor, data: Tensor, floor: Tensor | None) -> tuple[Tensor, Tensor]:
    sampled, data = sampled.clone().requires_grad_(), data.clone().requires_grad_()
    down, up = torch.autograd.grad(cql_penalty(sampled, data, floor).sum(), (sampled, data))
    return down, up


def test_floor_replaces_lower_samples_in_the_value() -> None:
    """Cal-QL: LSE over max(q, V); -inf where a sample has no reference."""
    sampled = torch.tensor([[[1.0, 5.0], [2.0, -1.0]], [[-3.0, 0.0], [4.0, 4.0]]])
    data = torch.tensor([[0.5, 0.0], [1.0, 2.0]])
    floor = torch.tensor([1.5, 0.5])[:, None, None].expand(2, 2, 2).clone()
    floor[0, 1] = -torch.inf
    bounded = torch.tensor([[[1.5, 5.0], [2.0, -1.0]], [[0.5, 0.5], [4.0, 4.0]]])
    torch.testing.assert_close(cql_penalty(sampled, data, floor), cql_penalty(bounded, data))


def test_samples_below_their_floor_move_nothing() -> None:
    """They are not pushed down, and the data's action is not pushed up for them: the pushes cancel."""
    generator = torch.Generator().manual_seed(0)
    sampled = 2 * torch.randn(4, 6, 2, generator=generator, dtype=torch.float64)
    data = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    floor = torch.full_like(sampled, 0.5)
    floor[:, :2] = -torch.inf
    for wanted in (None, floor):
        down, up = _slopes(sampled, data, wanted)
        torch.testing.assert_close(down.sum(1) + up, torch.zeros_like(up))
        assert (up <= 0).all()
    low = sampled < floor
    assert low.any()
    assert (down[low] == 0).all()
    assert (down[~low] > 0).all()
    all_low, none_up = _slopes(sampled, data, torch.full_like(sampled, 50.0))
    assert all_low.abs().max() == 0
    assert none_up.abs().max() < 1e-12


def test_pushes_are_the_softmax_over_everything() -> None:
    generator = torch.Generator().manual_seed(1)
    sampled = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    data = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    share = torch.softmax(torch.cat([sampled, data[:, None]], 1), 1)
    down, up = _slopes(sampled, data, None)
    torch.testing.assert_close(down, share[:, :-1] / 2)
    torch.testing.assert_close(up, (share[:, -1] - 1) / 2)


def test_scale_is_linear_in_alpha_and_blind_to_the_reward() -> None:
    base = scaled_alpha(5.0, 32, 0.8, 7.0)
    assert base == pytest.approx(0.5 * 32 * 0.8 / (2.5 * 7.0) / NETWORK_GAIN)
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
    """In a table: of the data's action, where the penalty's mass lies elsewhere; whatever the number of critics."""
    spread, advantage = 20.0, 2.0
    quantiles = torch.tensor(norm.ppf(midpoints(ATOMS).double().numpy())) * spread
    target = torch.tensor(norm.ppf((torch.arange(256) + 0.5).numpy() / 256)) * spread
    weight = NETWORK_GAIN * scaled_alpha(alpha, ATOMS, advantage, spread)
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
