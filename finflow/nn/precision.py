"""Precision and gradient checkpointing: they change speed and memory, and results only by rounding."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Computing:
    """half: what matrices are multiplied in (mixed precision), None is float32; recompute: gradient checkpointing."""

    half: torch.dtype | None = None
    recompute: bool = False


class Computed(nn.Module):
    """A module whose large products follow a `Computing`; parameters and outputs stay float32."""

    computing = Computing()

    def mixed(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`function(*inputs)` in the configured precision, returned as float32."""
        if self.computing.half is None:
            return function(*inputs)
        with torch.autocast(inputs[0].device.type, self.computing.half):
            return function(*inputs).float()

    def recomputed(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """As `mixed`; under gradient checkpointing (Chen et al. 2016) only `inputs` are kept for the backward pass."""
        if not (self.computing.recompute and self._learns()):  # a frozen critic may thaw before its backward pass
            return self.mixed(function, *inputs)
        found = checkpoint(self.mixed, function, *inputs, use_reentrant=False)
        assert isinstance(found, Tensor)
        return found

    def _learns(self) -> bool:
        return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())

    def compute_as(self, computing: Computing) -> None:
        """Set `computing` in every part of this module."""
        for part in self.modules():
            if isinstance(part, Computed):
                part.computing = computing
