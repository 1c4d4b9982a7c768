"""Adam gives the numbers of torch's own fused Adam to the bit, and reads its state."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from finflow.agents.adam import Adam


def _parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 5), (5,), (3, 2, 4), ())
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def _groups(parameters: list[Tensor]) -> list[dict[str, Any]]:
    return [{"params": parameters[:2], "lr": 1e-2}, {"params": parameters[2:], "lr": 3e-3}]


def _learn(parameters: list[Tensor], optimiser: Any, steps: range) -> None:
    for step in steps:
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(100 + step)
        for at, parameter in enumerate(parameters):
            if (at + step) % 3:  # some have no gradient, and stand still
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.param_groups[0]["lr"] = 1e-2 / (1 + step)
        optimiser.step()


def _torchs(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    return torch.optim.Adam(groups, fused=True)


def test_steps_equal_torchs_to_the_bit() -> None:
    ours, theirs = _parameters(), _parameters()
    _learn(ours, Adam(_groups(ours)), range(6))
    _learn(theirs, _torchs(_groups(theirs)), range(6))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], _parameters()[0])


@pytest.mark.parametrize("first", [Adam, _torchs])
def test_goes_on_from_its_own_state_and_from_torchs(first: Any) -> None:
    whole, begun = _parameters(), _parameters()
    _learn(whole, Adam(_groups(whole)), range(6))
    before = first(_groups(begun))
    _learn(begun, before, range(3))
    after = Adam(_groups(begun))
    kept = before.state_dict()
    after.load_state_dict(kept)
    held = kept["state"][0]["exp_avg"].clone()
    _learn(begun, after, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, begun, strict=True))
    assert torch.equal(kept["state"][0]["exp_avg"], held)  # what was handed over is not written on


def test_a_step_that_a_gradient_scaler_leaves_out_does_not_count() -> None:
    parameters = _parameters()
    optimiser = Adam(_groups(parameters))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimiser.found_inf = torch.tensor(1.0)
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, _parameters(), strict=True))
    assert {float(state["step"]) for state in optimiser.state.values()} == {0.0}
    optimiser.found_inf = torch.tensor(0.0)
    optimiser.step()
    assert torch.allclose(parameters[0], _parameters()[0] - 1e-2, atol=1e-6)
    assert {float(state["step"]) for state in optimiser.state.values()} == {1.0}


def test_a_step_does_not_import_torchs_compiler() -> None:
    program = (
        "import sys, torch; from finflow.agents.adam import Adam\n"
        "p = torch.ones(3, requires_grad=True); p.grad = torch.ones(3)\n"
        "optimiser = Adam([{'params': [p], 'lr': 0.1}]); optimiser.step()\n"
        "print('torch._dynamo' in sys.modules, p.tolist()[0] < 1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
