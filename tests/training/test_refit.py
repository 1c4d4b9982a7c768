from collections.abc import Callable

import torch

from finflow.agents.bcell import BCell
from finflow.seeding import torch_stream
from finflow.stages.prepare import Prepared
from finflow.training.refit import RefitState, refit
from finflow.training.replay_buffer import ReplayBuffer


def test_refit_changes_values_alone_and_says_so(
    make_bcell: Callable[..., BCell], prepared: Prepared, memory: ReplayBuffer, recorder: object
) -> None:
    agent = make_bcell()
    before = {name: tensor.clone() for name, tensor in agent.networks.state_dict().items()}
    state, pauses, generator = RefitState(), list[int](), torch_stream(0, "test")
    refit(
        agent, memory, prepared.world, recorder, 5, state,  # type: ignore[arg-type]
        pause=lambda: pauses.append(state.updates), generator=generator,
    )  # fmt: skip
    assert pauses == [1, 2, 3, 4, 5]
    changed = {name for name, t in agent.networks.state_dict().items() if not torch.equal(t, before[name])}
    assert {name.split(".")[0] for name in changed} == {"critic", "target"}
    (alert,) = recorder.alerts  # type: ignore[attr-defined]
    assert "refitted for 5 updates" in alert
    assert "q_loss" in alert
