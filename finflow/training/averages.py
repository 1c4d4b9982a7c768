"""Means of detached metrics, kept on the device until they are read."""

import torch
from torch import Tensor

from finflow.agents.base import Stateful
from finflow.errors import DivergedError

CHECK_EVERY = 50  # updates between checks for a NaN or infinity


class Averages(Stateful):
    """Running means of an agent's metrics; syncs with the device only in `means` and every 50 updates."""

    STATE = ("_sums", "_counts", "_added")

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._added = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add one update's metrics.

        Raises
        ------
        DivergedError
            Naming the metric that is not finite.
        """
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1
        self._added += 1
        if self._added % CHECK_EVERY == 0:
            self.check("training")

    def means(self, where: str) -> dict[str, float]:
        """Mean of every metric so far."""
        self.check(where)
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def check(self, where: str) -> None:
        """Check the added metrics for a NaN or infinity.

        Raises
        ------
        DivergedError
            Naming the metric that is not finite.
        """
        if not self._sums:
            return
        finite = torch.isfinite(torch.stack(list(self._sums.values())))
        if not bool(finite.all()):
            name = list(self._sums)[int((~finite).nonzero()[0])]
            raise DivergedError(f"{where}: {name} is not finite; lower algo.lr or raise algo.batch_size")
