"""How networks compute, which changes what they cost and no more than rounding of what they say."""

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
    """A module whose large products follow a `Computing`; parameters and all that comes out stay float32."""

    computing = Computing()

    def mixed(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`function` of `inputs` in the precision asked for, as float32."""
        if self.computing.half is None:
            return function(*inputs)
        with torch.autocast(inputs[0].device.type, self.computing.half):
            return function(*inputs).float()

    def recomputed(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """As `mixed`; under gradient checkpointing (Chen et al. 2016) only `inputs` are kept for the backward pass."""
        if not (self.computing.recompute and self._learns()):  # a frozen critic is thawed before its backward pass
            return self.mixed(function, *inputs)
        found = checkpoint(self.mixed, function, *inputs, use_reentrant=False)
        assert isinstance(found, Tensor)
        return found

    def _learns(self) -> bool:
        return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())

    def compute_as(self, computing: Computing) -> None:
        """Make every part of this module compute so."""
        for part in self.modules():
            if isinstance(part, Computed):
                part.computing = computing
