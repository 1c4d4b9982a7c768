"""State declared once: what a checkpoint holds of an object, by the names of its attributes."""

import copy
from typing import Any, ClassVar

import torch
from torch import nn

from finflow.agents.distributed import rank


class Stateful:
    """Takes and restores the attributes named in `STATE`; a leading underscore is no part of a name in the state.

    An attribute with a `state_dict` of its own gives that, a generator its stream, a parameter its values; a tensor
    returns to its device; of anything else a shallow copy is kept. A checkpoint is the first process's, so no other one
    takes its own stream, `generator`, from there.
    """

    STATE: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs: tensors, arrays and plain data, nested."""
        return {name.lstrip("_"): _taken(getattr(self, name)) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in self.STATE:
            value, stored = getattr(self, name), state[name.lstrip("_")]
            if isinstance(value, torch.Generator):
                if name != "generator" or rank() == 0:
                    value.set_state(stored)
            elif isinstance(value, nn.Parameter):
                with torch.no_grad():
                    value.copy_(stored)
            elif stored is not None and hasattr(value, "load_state_dict"):
                value.load_state_dict(stored)
            elif isinstance(value, torch.Tensor) and isinstance(stored, torch.Tensor):
                setattr(self, name, stored.to(value.device))
            else:
                setattr(self, name, copy.copy(stored))


def _taken(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, nn.Parameter):
        return value.detach().clone()
    return value.state_dict() if hasattr(value, "state_dict") else copy.copy(value)
