"""Several processes that train one agent, as torchrun starts them.

Every process runs the same run, with the same data, episodes, batches and weights. Each computes the gradient of its
rows of a batch, and DistributedDataParallel averages the gradients.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finflow.agents.batch import Batch, Paths
from finflow.envs.world import State

LossOutput = TypeVar("LossOutput")
"""What a loss gives: tensors, in any nest of tuples and dictionaries."""


def size() -> int:
    """Processes that train together; 1 on its own."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them; 0 writes the run."""
    return dist.get_rank() if size() > 1 else 0


def sharded_update(update: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
    """One update of all processes, each on its rows of the same batch; means of their metrics."""
    if size() == 1:
        return update(batch)
    metrics = update(own_rows(batch))
    values = torch.stack([value.float() for value in metrics.values()])
    dist.all_reduce(values)
    return dict(zip(metrics, (values / size()).unbind(), strict=True))


def own_rows(batch: Batch) -> Batch:
    """Every size-th row, since a batch has its offline rows before its online ones."""
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

    def forward(self, loss: Callable[[], LossOutput]) -> LossOutput:
        """`loss`, as it is."""
        return loss()


def wrap_ddp(parts: Iterable[nn.Module], free: Iterable[nn.Parameter]) -> nn.Module:
    """A `LossModule`; with several processes, its gradients are averaged during the backward pass."""
    learnt = LossModule(parts, free)
    if size() == 1:
        return learnt
    return DistributedDataParallel(learnt, broadcast_buffers=False, find_unused_parameters=True)


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
