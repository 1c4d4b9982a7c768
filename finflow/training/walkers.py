"""Walkers: the policy's own portfolios on training paths, along which value gradients are computed."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import Batch, Paths, Stateful, all_walkers, size
from finflow.data.market import TRADABLE, Market
from finflow.envs.collect import Rows, padded, starting_portfolios
from finflow.envs.simulator import World
from finflow.errors import ConfigError, DataError
from finflow.seeding import numpy_stream

Draw = Callable[[int, int, np.random.Generator], list[Rows]]
"""(actor, count, rng) -> decision rows of so many episodes that this actor may learn from."""


class Walkers(Stateful):
    """W walkers for each of A actors. One whose episode has fewer than H days left begins another.

    A walker keeps its holdings from one update to the next, without gradient: gradients reach back H days.

    Parameters
    ----------
    draw : episodes, each of H decisions at least.
    horizon : H.
    stream : name of the random stream that episodes are drawn from.
    """

    STATE = ("_rows", "_length", "_at", "_drifted", "_drawdown", "_draws")

    def __init__(
        self,
        market: Market,
        world: World,
        draw: Draw,
        *,
        actors: int,
        walkers: int,
        horizon: int,
        seed: int,
        stream: str,
    ) -> None:
        if walkers % size():
            raise ConfigError(f"algo.walkers={walkers}: not a multiple of the {size()} processes; choose one that is")
        self.market, self.world, self.draw = market, world, draw
        self.actors, self.horizon, self.seed, self.stream = actors, horizon, seed, stream
        self.priors = world.priors.cpu().double().numpy()
        count = actors * walkers
        self._rows = np.zeros((count, 1), dtype=np.int64)
        self._length, self._at = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        self._drifted = torch.zeros(count, market.n, dtype=torch.double, device=world.device)
        self._drawdown = torch.zeros(count, dtype=torch.double, device=world.device)
        self._open = (market.status == TRADABLE).all(1) & market.decision
        self._draws = 0

    def paths(self) -> Paths:
        """Positions of all walkers, and the rows of their next H days and of the state after them."""
        due = np.flatnonzero(self._length - self._at < self.horizon)
        if len(due):
            self._begin(due)
        ahead = self._at[:, None] + np.arange(self.horizon + 1)
        last = np.take_along_axis(self._rows, self._length[:, None] - 1, axis=1)
        rows = np.take_along_axis(self._rows, np.minimum(ahead, self._length[:, None] - 1), axis=1)
        rows = np.where(ahead < self._length[:, None], rows, last + 1)
        rows_there = torch.from_numpy(rows).to(self.world.device)
        return Paths(rows_there, self._drifted, self._drawdown, bool(self._open[rows[:, :-1]].all()))

    def batch(self) -> Batch:
        """Paths for a learner without a critic; the batch's transitions are placeholders."""
        paths = self.paths()
        state = self.world.observe(paths.rows[:, 0], paths.drifted, paths.drawdown)
        none = self._drawdown.float()
        return Batch(state, paths.drifted, none, none, state, paths.drifted, none.bool(), paths)

    def advance(self, reached: tuple[Tensor, Tensor] | None) -> None:
        """Continue from the end of the last update's paths: drifted weights and drawdowns of this process's walkers."""
        assert reached is not None
        self._drifted, self._drawdown = (all_walkers(part) for part in reached)
        self._at = self._at + self.horizon

    def _begin(self, due: NDArray[np.int64]) -> None:
        rng = numpy_stream(self.seed, f"{self.stream}/{self._draws}")
        per_actor = len(self._at) // self.actors
        actors, counts = np.unique(due // per_actor, return_counts=True)
        pairs = zip(actors.tolist(), counts.tolist(), strict=True)
        episodes = [rows for actor, count in pairs for rows in self.draw(actor, count, rng)]
        table = padded(episodes)
        if (least := min(len(rows) for rows in episodes)) < self.horizon:
            raise DataError(f"algo.horizon={self.horizon}: training paths have {least} decisions; lower it")
        missing = table.shape[1] - self._rows.shape[1]
        if missing > 0:
            self._rows = np.pad(self._rows, ((0, 0), (0, missing)))
        self._rows[due, : table.shape[1]] = table
        self._length[due] = [len(rows) for rows in episodes]
        # The first episodes start at random positions, so that walkers do not all restart at the same update.
        spare = self._length[due] - self.horizon + 1
        self._at[due] = rng.integers(spare) if self._draws == 0 else 0
        starts = starting_portfolios(
            self.market, self.priors, [rows[at:] for rows, at in zip(episodes, self._at[due], strict=True)], rng
        )
        index = torch.from_numpy(due).to(self.world.device)
        self._drifted, self._drawdown = self._drifted.clone(), self._drawdown.clone()
        self._drifted[index] = torch.from_numpy(starts).to(self.world.device)
        self._drawdown[index] = 0.0
        self._draws += 1
