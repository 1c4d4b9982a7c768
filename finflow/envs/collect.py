"""Offline data: behaviours trade through training days; their holdings and decisions are stored, nothing else."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.data.market import Market, Window
from finflow.envs.behaviours import behave, draw_personas
from finflow.envs.episodes import MEAN_BLOCK, bootstrapped, historical, padded, starting_portfolios
from finflow.envs.simulator import Simulator
from finflow.envs.world import World
from finflow.errors import DataError
from finflow.seeding import numpy_stream, torch_stream

_ARRAYS = ("row", "next_row", "drifted", "executed", "drawdown", "previous")


@dataclass(frozen=True)
class Dataset:
    """Transitions of parallel episodes, ordered by day and, within a day, by episode.

    row, next_row [N] int32; drifted, executed [N, n] float32; drawdown [N] float32; previous [N] int64, the
    index of the transition before it, -1 at a start; facts: data and settings that shaped it.
    """

    row: NDArray[np.int32]
    next_row: NDArray[np.int32]
    drifted: NDArray[np.float32]
    executed: NDArray[np.float32]
    drawdown: NDArray[np.float32]
    previous: NDArray[np.int64]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.row)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def only(self, keep: NDArray[np.bool_]) -> "Dataset":
        """The transitions marked in `keep` [N]; links to those left out are cut."""
        renumbered = np.cumsum(keep) - 1
        linked = (self.previous >= 0) & keep[np.maximum(self.previous, 0)]
        previous = np.where(linked, renumbered[np.maximum(self.previous, 0)], -1)[keep]
        kept: dict[str, Any] = {name: array[keep] for name, array in self.arrays().items() if name != "previous"}
        return Dataset(**kept, previous=previous, facts=self.facts)


def collect(
    market: Market,
    world: World,
    train: Window,
    episodes: int,
    days: int,
    bootstrap_fraction: float,
    seed: int,
    facts: dict[str, Any],
) -> Dataset:
    """Run `episodes` behaviours for `days` days each on train rows, a share of them on bootstrapped history.

    An episode starts in cash, 1/N or a prior portfolio, a third each. The world must live on the CPU.
    """
    rng, generator = numpy_stream(seed, "collect/episodes"), torch_stream(seed, "collect/behaviours")
    resampled = round(episodes * bootstrap_fraction)
    rows = historical(train, days, episodes - resampled, rng) + bootstrapped(
        train, days, resampled, rng, market.calendar.rows(MEAN_BLOCK)
    )
    simulator = Simulator(market, world.accounting, world.reward)
    simulator.reset(padded(rows), starting_portfolios(market, world.priors.cpu().double().numpy(), rows, rng))
    personas = draw_personas(episodes, world.priors.shape[1], generator)
    lived: list[dict[str, NDArray[Any]]] = []
    previous = np.full(episodes, -1, dtype=np.int64)
    stored = 0
    while simulator.active.any():
        active = np.flatnonzero(simulator.active)
        state = world.observe(*_tensors(simulator))
        step = simulator.step(behave(personas, state, generator).numpy())
        index = stored + np.arange(len(active))
        lived.append(
            {
                "row": step.row[active].astype(np.int32),
                "next_row": step.next_row[active].astype(np.int32),
                "drifted": step.before[active].astype(np.float32),
                "executed": step.executed[active].astype(np.float32),
                "drawdown": step.drawdown_before[active].astype(np.float32),
                "previous": previous[active],
            }
        )
        previous[active] = index
        stored += len(active)
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in lived]) for name in _ARRAYS}
    return Dataset(**joined, facts=facts)


def dataset_bytes(dataset: Dataset) -> bytes:
    """An .npz without objects, the same bytes for the same data; its `facts` are one JSON string."""
    file = io.BytesIO()
    arrays: dict[str, Any] = dataset.arrays()
    np.savez(file, facts=np.array(json.dumps(dataset.facts, sort_keys=True)), **arrays)
    return file.getvalue()


def load_dataset(path: Path, wanted: dict[str, Any]) -> Dataset:
    """Read a dataset made by `collect.py` and check that it belongs to this market and fold: `wanted` are its facts.

    Raises
    ------
    DataError
        If the file is missing, damaged, holds objects, or was made from other data (the field is named).
    """
    key, remedy = f"offline.dataset={path}", "make one with experiments/collect.py"
    try:
        with np.load(path, allow_pickle=False) as file:
            facts, arrays = json.loads(str(file["facts"])), {name: file[name] for name in _ARRAYS}
    except FileNotFoundError:
        raise DataError(f"{key}: no such file; {remedy}") from None
    except Exception as error:  # a damaged archive raises many kinds of errors
        raise DataError(f"{key}: not a dataset of FinFlow, or damaged; {remedy}") from error
    for name, value in wanted.items():
        if facts.get(name) != value:
            leaf, there, here = _difference(name, facts.get(name), value)
            raise DataError(f"{key}: made with {leaf}={there}, this run has {here}; {remedy}")
    return Dataset(**arrays, facts=facts)


def _difference(name: str, there: Any, here: Any) -> tuple[str, str, str]:
    """Dotted name of the first fact that differs, and its two values as text."""
    if isinstance(there, dict) and isinstance(here, dict):
        for part in sorted({*there, *here}):
            if there.get(part) != here.get(part):
                return _difference(f"{name}.{part}", there.get(part), here.get(part))
    texts = [repr(value) for value in (there, here)]
    first, second = (text if len(text) <= 80 else f"{text[:77]}..." for text in texts)
    return name, first, second


def _tensors(simulator: Simulator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(simulator.row),
        torch.from_numpy(simulator.drifted),
        torch.from_numpy(simulator.drawdown),
    )
