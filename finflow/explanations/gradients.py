"""Integrated gradients (Sundararajan et al. 2017): attributes a decision to its inputs, relative to an average day.

The share of an input is (x - x0) times the mean gradient on the straight line from the average day x0 to the day x.
Shares sum to f(x) - f(x0) exactly; what the numerical integral leaves is the completeness residual, which is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from finflow.envs.simulator import State
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import Subject
from finflow.explanations.inputs import Input, average_day, gather, named_inputs
from finflow.nn.layers import Decision

Target = Callable[[Decision], Tensor]
"""B decisions -> [B], the explained quantity."""

TOLERANCE, MOST, ROUNDING = 1e-3, 5e-5, 2e-8
"""Residual at which the integral is fine enough: a share of the sum of |shares|, at most half a basis point of wealth,
and never less than what float32 leaves of a weight."""
MOVED = ("assets", "market", "priors")
STEPS = (32, 64, 128, 256, 512, 1024, 2048)
CHUNK = 256


@dataclass(frozen=True)
class Attribution:
    """f(x) = `average` + sum of `shares` [P] + `residual`, f(x) = `value`; `steps` points of the integral were used."""

    inputs: tuple[Input, ...]
    shares: Floats
    value: float
    average: float
    residual: float
    steps: int

    def top(self, count: int) -> list[int]:
        """Places of the largest shares by size, the largest first."""
        return [int(place) for place in np.argsort(-np.abs(self.shares), kind="stable")[:count]]


def integrated_gradients(
    actor: nn.Module, subject: Subject, state: State, target: Target, tolerance: float = TOLERANCE
) -> Attribution:
    """Shares of every named input in `target` of one state (B = 1), against the average day.

    Parameters
    ----------
    actor : the subject's, or another one with the same inputs; its dropout is off.
    tolerance : see `TOLERANCE`.
    """
    average = average_day(subject, state)
    training = actor.training
    actor.eval()
    with torch.no_grad():
        value, start = (float(target(actor(one))) for one in (state, average))
    inputs = named_inputs(subject)
    shares, residual, steps = np.zeros(len(inputs)), value - start, 0
    for steps in STEPS:
        shares = _integrate(actor, state, average, target, inputs, steps)
        residual = value - start - float(shares.sum())
        if abs(residual) <= max(min(tolerance * float(np.abs(shares).sum()), MOST), ROUNDING):
            break
    actor.train(training)
    return Attribution(inputs, shares, value, start, residual, steps)


def _integrate(
    actor: nn.Module, state: State, average: State, target: Target, inputs: tuple[Input, ...], steps: int
) -> Floats:
    """Gauss-Legendre on [0, 1]: exact for smooth paths with few points, and kinks are met by more of them."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at, weight = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    total = torch.zeros(len(inputs), dtype=torch.float64)
    for chunk in range(0, steps, CHUNK):
        part = at[chunk : chunk + CHUNK].to(state.assets)
        moved = [
            torch.lerp(start.expand(len(part), *start.shape[1:]), end, part.view(-1, *[1] * (start.dim() - 1)))
            for start, end in ((getattr(average, name), getattr(state, name)) for name in MOVED)
        ]
        with torch.enable_grad():
            found = target(actor(path_state(state, *(m.requires_grad_() for m in moved)))).sum()
        slopes = torch.autograd.grad(found, moved, materialize_grads=True)
        ends = (getattr(state, name) - getattr(average, name) for name in MOVED)
        shares = gather(inputs, *(slope * end for slope, end in zip(slopes, ends, strict=True)))
        total += (shares.double().cpu() * weight[chunk : chunk + CHUNK, None]).sum(0)
    return total.numpy()


def path_state(state: State, assets: Tensor, market: Tensor, priors: Tensor) -> State:
    """One state (B = 1) with other inputs, repeated to their B."""
    count = len(assets)
    repeated = State(*(part.expand(count, *part.shape[1:]) for part in state))
    return repeated._replace(assets=assets, market=market, priors=priors)
