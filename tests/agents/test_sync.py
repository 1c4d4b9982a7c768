"""Inside an update nothing waits for the device: no value is read back, no shape depends on one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finflow.agents.base import Batch, OfflineCoefficients, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.envs.simulator import World
from finflow.training.replay_buffer import Batcher, ReplayBuffer

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")
"""Operators of aten that hand a value, or a shape made of values, to the host: `float()`, `if tensor:`, x[mask]."""


class NoWaiting(TorchDispatchMode):
    """Collects the operators that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = (
            [i for i in args[1] if i is not None and i.dtype is torch.bool] if name in ("index", "index_put_") else []
        )
        if name in WAITS or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits() -> None:
    with NoWaiting() as watch:
        x = torch.ones(3)
        float(x.sum())
        bool((x > 0).all())
        x[x > 0]
    assert watch.found == ["_local_scalar_dense", "_local_scalar_dense", "index"]


@pytest.mark.parametrize("kind", ["portfolio", "mlp"])
@pytest.mark.parametrize("name", ["iql", "bcell"])
def test_an_update_never_waits_for_the_device(
    name: str, kind: str, iql_config: Any, make_iql: Callable[..., IQL], make_bcell: Callable[..., BCell],
    make_batch: Callable[..., Batch], world: World, coefficients: OnlineCoefficients,
) -> None:  # fmt: skip
    network, batch = iql_config.network.model_copy(update={"kind": kind}), make_batch(world)
    if name == "iql":
        work = partial(make_iql(0, network=network).update, batch, OfflineCoefficients())
    else:
        learner = make_bcell(0, network=network, risk_weight=0.5)
        learner.scales = Scales(0.5, 5.0)
        learner.refit(batch)
        with NoWaiting() as watch:
            learner.refit(batch)
        assert watch.found == []
        work = partial(learner.update, batch, coefficients)
    work()  # the first one makes the optimisers' state
    with NoWaiting() as watch:
        work()
    assert watch.found == []


@pytest.mark.parametrize("policy", [False, True])
def test_a_batch_is_made_without_waiting_for_the_device(
    policy: bool, world: World, make_bcell: Callable[..., BCell]
) -> None:
    g = torch.Generator().manual_seed(0)
    memory = ReplayBuffer(64, 4, world.device)
    held = torch.softmax(torch.randn(40, 4, generator=g), -1).double()
    rows = torch.randint(1, 100, (40,), generator=g)
    memory.add(rows, rows + 1, held, held.flip(0), torch.zeros(40), torch.full((40,), -1))
    agent = make_bcell()
    batcher = Batcher(world, 0.5, 0.01, 0.9, g, (lambda state: agent.act(state, g)) if policy else None)
    with NoWaiting() as watch:
        batcher.complete(memory.sample(32, g))
    assert watch.found == []
