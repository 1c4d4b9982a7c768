"""Adam (Kingma & Ba 2015) by torch's fused kernel."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """The numbers of `torch.optim.Adam(groups, fused=True)` to the bit, and its state dictionary.

    That class imports torch's compiler when it is made, which takes longer than all else before the first update, and
    tells it at every step to keep out.

    Parameters
    ----------
    groups : each with its `params` and `lr`; the rates may be changed between steps.
    """

    _step_supports_amp_scaling = True  # a gradient scaler then says by `found_inf` that a step is left out
    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.param_groups: list[dict[str, Any]] = [{**group, "params": list(group["params"])} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if learning:
                self._step(learning, [parameter.grad for parameter in learning], group["lr"])

    def _step(self, learning: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        states = [self.state.get(parameter) or self._begin(parameter) for parameter in learning]
        steps, means, squares = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
        # torch has no public names for its kernels.
        torch._foreach_add_(steps, 1)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        torch._fused_adam_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            learning, gradients, means, squares, [], steps,
            lr=lr, beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, weight_decay=0.0, amsgrad=False, maximize=False,
            grad_scale=self.grad_scale, found_inf=self.found_inf,
        )  # fmt: skip
        if self.found_inf is not None:  # a step that was left out does not count
            torch._foreach_sub_(steps, [self.found_inf] * len(steps))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        found = {"step": torch.zeros((), device=parameter.device)}
        found |= {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        self.state[parameter] = found
        return found

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """Moments by a parameter's place among all, and the groups' rates."""
        place = {parameter: at for at, parameter in enumerate(self._parameters())}
        return {
            "state": {place[parameter]: dict(state) for parameter, state in self.state.items()},
            "param_groups": [
                {"lr": group["lr"], "params": [place[parameter] for parameter in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        parameters = self._parameters()
        self.state = {
            parameters[at]: {name: value.to(parameters[at].device, copy=True) for name, value in moments.items()}
            for at, moments in state["state"].items()
        }
        for group, kept in zip(self.param_groups, state["param_groups"], strict=True):
            group["lr"] = kept["lr"]
