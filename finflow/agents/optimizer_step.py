"""Forward, backward and step of an agent's optimisers, with several processes and with float16."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from finflow.agents.distributed import wrap_ddp
from finflow.nn.networks import Networks


class Descent:
    """Steps of an agent's optimisers; in float16 the losses are scaled (Micikevicius et al. 2018).

    A step whose scaled gradients are not finite is skipped and the scale halved, which is usual at the start.

    Parameters
    ----------
    free : trained parameters beside critic and actor.

    Attributes
    ----------
    forward : `forward(loss, *inputs)` is `loss(*inputs)`. Call `backward` before the next `forward`: it averages
        gradients over processes.
    """

    def __init__(self, networks: Networks, free: Iterable[nn.Parameter] = ()) -> None:
        self.forward = wrap_ddp([networks.critic, networks.actor], free)
        half = networks.computing.half is torch.float16
        self.scaler = torch.amp.GradScaler(next(networks.parameters()).device.type) if half else None

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the parameters' own."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip(self, optimiser: torch.optim.Optimizer, clipped: Iterable[Iterable[Tensor]], norm: float) -> list[Tensor]:
        """Clip each group of parameters, all of `optimiser`, to `norm`; the norms before."""
        if self.scaler is not None:
            self.scaler.unscale_(optimiser)
        return [torch.nn.utils.clip_grad_norm_(group, norm) for group in clipped]

    def step(self, *optimisers: torch.optim.Optimizer) -> None:
        """One step of each; the end of an update."""
        for optimiser in optimisers:
            if self.scaler is None:
                optimiser.step()
            else:
                self.scaler.step(optimiser)
        if self.scaler is not None:
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The scale; empty where there is none."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if self.scaler is not None:
            self.scaler.load_state_dict(state)
