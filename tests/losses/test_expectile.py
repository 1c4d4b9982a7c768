import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from finflow.losses import expectile_loss

LEVELS = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000


def _minimiser(values: Tensor, expectile: float) -> float:
    """Where the loss's own gradient vanishes, by bisection."""
    low, high = float(values.min()), float(values.max())
    for _ in range(30):
        middle = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(expectile_loss(values - middle, expectile), middle)
        at = float(middle.detach())
        low, high = (low, at) if slope > 0 else (at, high)
    return (low + high) / 2


@pytest.mark.parametrize(
    ("values", "expected"), [(torch.tensor(norm.ppf(LEVELS.numpy())), 0.33712), (LEVELS, 0.60436)], ids=["N01", "U01"]
)
def test_expectile_of_a_known_distribution(values: Tensor, expected: float) -> None:
    assert _minimiser(values, 0.7) == pytest.approx(expected, abs=1e-4)


def test_half_is_the_mean() -> None:
    values = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    assert _minimiser(values, 0.5) == pytest.approx(2.0, abs=1e-6)


def test_value_by_hand_with_target_minus_prediction() -> None:
    assert float(expectile_loss(torch.tensor([2.0, -1.0]), 0.7)) == pytest.approx((0.7 * 4 + 0.3 * 1) / 2)
