"""Replay memory that stores indices into the market and weights, never observations, rewards or next states."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finflow.envs.collect import Dataset
from finflow.errors import DataError


class Transitions(NamedTuple):
    """B recorded transitions.

    row, next_row [B] int64; drifted, executed [B, n] float64; drawdown [B] float64; next_executed [B, n] float64 and
    has_next [B] bool: the same episode's next action, where there is one.
    """

    row: Tensor
    next_row: Tensor
    drifted: Tensor
    executed: Tensor
    drawdown: Tensor
    next_executed: Tensor
    has_next: Tensor


_STORED = ("row", "next_row", "drifted", "executed", "drawdown", "follows")


class ReplayBuffer:
    """Ring buffer of transitions on one device.

    Parameters
    ----------
    capacity : transitions held; the oldest are overwritten.
    n : assets, cash included.
    """

    def __init__(self, capacity: int, n: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.row = torch.zeros(capacity, dtype=torch.int32, device=device)
        self.next_row = torch.zeros(capacity, dtype=torch.int32, device=device)
        self.drifted = torch.zeros(capacity, n, device=device)
        self.executed = torch.zeros(capacity, n, device=device)
        self.drawdown = torch.zeros(capacity, device=device)
        self.follows = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self.size = 0
        self.at = 0

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device) -> "ReplayBuffer":
        """A memory that holds all of an offline dataset.

        Raises
        ------
        DataError
            If it holds no transitions.
        """
        if len(dataset) == 0:
            raise DataError(
                "offline data: no transitions are left of the days asked for; choose another market_regime,"
                " more budget.collect_episodes or a longer history"
            )
        memory = cls(len(dataset), dataset.drifted.shape[1], device)
        memory.add(*(torch.from_numpy(array).to(device) for array in dataset.arrays().values()))
        return memory

    def add(
        self, row: Tensor, next_row: Tensor, drifted: Tensor, executed: Tensor, drawdown: Tensor, previous: Tensor
    ) -> Tensor:
        """Store b transitions, b <= capacity.

        Parameters
        ----------
        previous : [b] index of the transition each one follows within its episode, -1 at a start.

        Returns
        -------
        [b] indices under which they are stored.
        """
        index = (self.at + torch.arange(len(row), device=self.device)) % self.capacity
        self.row[index], self.next_row[index] = row.to(torch.int32), next_row.to(torch.int32)
        self.drifted[index], self.executed[index] = drifted.float(), executed.float()
        self.drawdown[index] = drawdown.float()
        self.follows[index] = -1
        linked = previous >= 0
        # A successor is always younger than its predecessor, so it is overwritten later: links never dangle.
        self.follows[previous[linked]] = index[linked]
        self.at = int((self.at + len(row)) % self.capacity)
        self.size = min(self.capacity, self.size + len(row))
        return index

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Draw `count` transitions uniformly, with replacement."""
        index = torch.randint(self.size, (count,), generator=generator, device=self.device)
        follows = self.follows[index]
        return Transitions(
            self.row[index].long(),
            self.next_row[index].long(),
            self._simplex(self.drifted[index]),
            self._simplex(self.executed[index]),
            self.drawdown[index].double(),
            self._simplex(self.executed[follows.clamp_min(0)]),
            follows >= 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Every transition held, and where the next one goes."""
        return {**{name: getattr(self, name)[: self.size] for name in _STORED}, "size": self.size, "at": self.at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, of a memory of the same capacity."""
        self.size, self.at = state["size"], state["at"]
        for name in _STORED:
            getattr(self, name)[: self.size] = state[name]

    @staticmethod
    def _simplex(weights: Tensor) -> Tensor:
        """Weights in float64 whose cash takes up the rounding of their storage in float32."""
        exact = weights.double()
        exact[..., -1] = (1.0 - exact[..., :-1].sum(-1)).clamp_min(0.0)
        return exact / exact.sum(-1, keepdim=True)


def join(first: Transitions, second: Transitions) -> Transitions:
    """Two samples, one after the other."""
    return Transitions(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
