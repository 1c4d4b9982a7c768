"""Two processes on one batch: the gradient of one, the same weights in both, and one run folder."""

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from finflow.agents.base import (
    Batch,
    OfflineCoefficients,
    OnlineCoefficients,
    all_gather,
    all_reduce_max,
    mean_metrics,
    own_rows,
    own_stream,
    rank,
    world_size,
)
from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.envs.simulator import World

Learn = Callable[[], dict[str, Tensor]]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _one_of_two(index: int, port: int, work: Learn, folder: Path) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=index, world_size=2)
    save_file(work(), folder / f"{index}.safetensors")
    dist.destroy_process_group()


def in_two(work: Learn, folder: Path) -> list[dict[str, Tensor]]:
    """What `work` gives in each of two processes; they begin as copies of this one."""
    torch.multiprocessing.start_processes(_one_of_two, (_free_port(), work, folder), nprocs=2, start_method="fork")
    return [load_file(folder / f"{index}.safetensors") for index in range(2)]


def learn(make: Callable[[], IQL | BCell], batch: Batch, now: Any) -> dict[str, Tensor]:
    """Gradients of a first update, weights after three, and the last metrics."""
    agent = make()
    for step in range(3):
        metrics = mean_metrics(agent.update(own_rows(batch), now))
        if step == 0:
            networks = agent.networks.named_parameters()
            found = {f"gradient {name}": p.grad.clone() for name, p in networks if p.grad is not None}
    found |= {f"weight {name}": value.clone() for name, value in agent.networks.state_dict().items()}
    return found | {f"metric {name}": value.clone() for name, value in metrics.items()}


@pytest.mark.parametrize("kind", ["portfolio", "mlp"])
@pytest.mark.parametrize("name", ["iql", "bcell"])
def test_two_processes_learn_what_one_does(
    name: str, kind: str, iql_config: Any, bcell_config: Any, make_iql: Callable[..., IQL],
    make_bcell: Callable[..., BCell], make_batch: Callable[..., Batch], world: World, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Advantages are standardised over the whole batch. What each draws for itself is left out of the comparison."""
    network, batch = iql_config.network.model_copy(update={"kind": kind}), make_batch(world, 64)
    now: Any = OfflineCoefficients()
    make: Callable[[], IQL | BCell] = partial(make_iql, 0, network=network)
    if name == "bcell":
        monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
        now = OnlineCoefficients(sigma=0.2, anchor=0.5, temperature=1.0, balance=0.0, cql=0.0)
        gate = bcell_config.gate.model_copy(update={"expert_dropout": 0.0})
        make = partial(make_bcell, 0, network=network, gate=gate)
    alone = learn(make, batch, now)
    first, second = in_two(partial(learn, make, batch, now), tmp_path)
    assert len([key for key in alone if key.startswith("gradient")]) > 10
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        if key.startswith("gradient"):
            torch.testing.assert_close(first[key], value, rtol=0, atol=1e-6, msg=key)
        if key.startswith("weight"):  # where a gradient is about zero, Adam makes a step of its rounding
            torch.testing.assert_close(first[key], value, rtol=0, atol=1e-4, msg=key)
    for loss in {"v_loss", "q_loss", "policy_loss", "critic_loss", "actor_loss"} & set(alone):
        torch.testing.assert_close(first[f"metric {loss}"], alone[f"metric {loss}"], rtol=1e-5, atol=1e-6)


def test_shares_are_disjoint_and_complete(make_batch: Callable[..., Batch], world: World, tmp_path: Path) -> None:
    batch = make_batch(world, 10)

    def share() -> dict[str, Tensor]:
        own, generator = own_rows(batch), torch.Generator().manual_seed(5)
        everyones, mine = all_gather(own.reward)
        return {
            "row": own.state.row.clone(), "reward": own.reward.clone(), "next": own.next_state.row.clone(),
            "all": everyones, "mine": everyones[mine].clone(), "most": torch.tensor(all_reduce_max(7 + rank())),
            "noise": torch.rand(4, generator=own_stream(generator)), "size": torch.tensor(world_size()),
        }  # fmt: skip

    first, second = in_two(share, tmp_path)
    assert first["size"] == 2
    assert first["most"] == second["most"] == 8
    assert torch.equal(torch.stack([first["row"], second["row"]], 1).flatten(), batch.state.row)
    assert torch.equal(first["next"], batch.next_state.row[::2])
    for part in (first, second):
        assert torch.equal(part["all"], torch.cat([first["reward"], second["reward"]]))
        assert torch.equal(part["mine"], part["reward"])
    assert not torch.equal(first["noise"], second["noise"])


def test_alone_nothing_is_shared(make_batch: Callable[..., Batch], world: World) -> None:
    generator, rows = torch.Generator(), torch.arange(3.0)
    assert (world_size(), rank(), all_reduce_max(5)) == (1, 0, 5)
    assert own_stream(generator) is generator
    assert torch.equal(all_gather(rows)[0], rows)
