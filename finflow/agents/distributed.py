"""Several processes that train one agent, as torchrun starts them.

Every process runs the same run, with the same data, episodes, batches and weights. Each computes the gradient of its
rows of a batch, and DistributedDataParallel averages the gradients.
"""

import operator
from collections.abc import Callable, Iterable
from typing import ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finflow.agents.batch import Batch, Paths
from finflow.envs.world import State

LossInputs = ParamSpec("LossInputs")
LossOutput = TypeVar("LossOutput")
"""What a loss gives: tensors, in any nest of tuples and dictionaries."""


class Forward(Protocol):
    """Computes a loss."""

    def __call__(
        self, loss: Callable[LossInputs, LossOutput], /, *inputs: LossInputs.args, **named: LossInputs.kwargs
    ) -> LossOutput:
        """`loss(*inputs, **named)`."""
        ...


def size() -> int:
    """Processes that train together; 1 on its own."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them; 0 writes the run."""
    return dist.get_rank() if size() > 1 else 0


def mean_metrics(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean of every process's scalars, by name, after an update of each on its own rows of the same batch."""
    if size() == 1:
        return metrics
    values = torch.stack([value.float() for value in metrics.values()])
    dist.all_reduce(values)
    return dict(zip(metrics, (values / size()).unbind(), strict=True))


def own_rows(batch: Batch) -> Batch:
    """Every size-th row, since a batch has its offline rows before its online ones."""
    if size() == 1:
        return batch
    own = slice(rank(), None, size())
    state, following = (State(*(part[own] for part in whole)) for whole in (batch.state, batch.next_state))
    parts = (batch.weights, batch.reward, batch.discount, batch.next_weights, batch.has_next)
    weights, reward, discount, next_weights, has_next = (part[own] for part in parts)
    paths = batch.paths
    if paths is not None:
        paths = Paths(paths.rows[own], paths.drifted[own], paths.drawdown[own], paths.all_open)
    return Batch(state, weights, reward, discount, following, next_weights, has_next, paths)


def all_walkers(part: Tensor) -> Tensor:
    """Walkers of every process, in the order that `own_rows` shared them out from, [A w, ...] -> [A W, ...]."""
    if size() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(size())]
    dist.all_gather(parts, part.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


class LossModule(nn.Module):
    """All trained parts of an agent as one module whose forward pass computes any of the agent's losses.

    An agent uses its critic in three ways within one update, and DistributedDataParallel knows a single `forward`.
    """

    def __init__(self, parts: Iterable[nn.Module], free: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.parts, self.free = nn.ModuleList(parts), nn.ParameterList(free)

    def forward(
        self, loss: Callable[LossInputs, LossOutput], *inputs: LossInputs.args, **named: LossInputs.kwargs
    ) -> LossOutput:
        """`loss`, as it is."""
        return loss(*inputs, **named)


def wrap_ddp(parts: Iterable[nn.Module], free: Iterable[nn.Parameter]) -> Forward:
    """Computes losses whose gradients are averaged over the processes during the backward pass."""
    if size() == 1:
        return operator.call
    return DistributedDataParallel(LossModule(parts, free), broadcast_buffers=False, find_unused_parameters=True)


def all_gather(rows: Tensor) -> tuple[Tensor, slice]:
    """Rows [b] of every process, one after the other, [size b], without gradient; and where one's own are."""
    if size() == 1:
        return rows, slice(None)
    parts = [torch.empty_like(rows) for _ in range(size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts), slice(rank() * len(rows), (rank() + 1) * len(rows))


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean of every process's scalar, without gradient."""
    if size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / size()


def own_stream(generator: torch.Generator) -> torch.Generator:
    """A random stream of this process alone; with a single process, `generator` itself."""
    if size() == 1:
        return generator
    own = torch.Generator(generator.device)
    own.manual_seed((generator.initial_seed() + 1 + rank()) % 2**63)
    return own


def all_reduce_max(number: int) -> int:
    """The largest of all processes' numbers."""
    if size() == 1:
        return number
    found = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)
