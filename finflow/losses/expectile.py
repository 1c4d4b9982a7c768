"""Expectile regression (Newey & Powell 1987; IQL, Kostrikov et al. 2021, eq. 5)."""

import torch
from torch import Tensor


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(u < 0)| u^2 over u = target - prediction, [B] -> scalar."""
    weight = torch.where(difference < 0, 1.0 - expectile, expectile)
    return (weight * difference.square()).mean()
