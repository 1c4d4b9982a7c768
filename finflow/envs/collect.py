"""Offline data: behaviours live through training days; what they held and did is kept, nothing else."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.data.market import Market, Window
from finflow.envs.behaviours import behave, draw_personas
from finflow.envs.episodes import bootstrapped, historical, padded, starting_portfolios
from finflow.envs.simulator import Simulator
from finflow.envs.world import World
from finflow.errors import DataError
from finflow.seeding import numpy_stream, torch_stream

_FIELDS = {"row": 1, "next_row": 1, "drifted": 2, "executed": 2, "drawdown": 1, "previous": 1}


@dataclass(frozen=True)
class Dataset:
    """Transitions of many episodes, episode after episode.

    row, next_row [N] int32; drifted, executed [N, n] float32; drawdown [N] float32; previous [N] int64, the
    transition it follows, -1 at a start; facts: what shaped it.
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
        return {name: getattr(self, name) for name in _FIELDS}

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
    """Let `episodes` behaviours live `days` days each on train rows, a share of them on bootstrapped history.

    An episode starts in cash, 1/N or a prior portfolio, a third each. The world must live on the CPU.
    """
    rng, generator = numpy_stream(seed, "collect/episodes"), torch_stream(seed, "collect/behaviours")
    resampled = round(episodes * bootstrap_fraction)
    rows = historical(train, days, episodes - resampled, rng) + bootstrapped(train, days, resampled, rng)
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
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in lived]) for name in _FIELDS}
    return Dataset(**joined, facts=facts)


def save_dataset(path: Path, dataset: Dataset) -> None:
    """Write an .npz without objects; its `facts` are one JSON string."""
    with path.open("wb") as file:
        arrays: dict[str, Any] = dataset.arrays()
        np.savez(file, facts=np.array(json.dumps(dataset.facts, sort_keys=True)), **arrays)


def load_dataset(path: Path, market: Market, train: Window, wanted: dict[str, Any]) -> Dataset:
    """Read a dataset made by `collect.py` and check that it belongs to this market and fold.

    Raises
    ------
    DataError
        If the file is missing, damaged, holds objects, or was made from other data (the field is named).
    """
    key = f"offline.dataset={path}"
    try:
        with np.load(path, allow_pickle=False) as file:
            facts: dict[str, Any] = json.loads(str(file["facts"]))
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in _FIELDS}
    except (OSError, ValueError, KeyError, EOFError) as error:
        reason = str(error).split("\n")[0][:120]
        raise DataError(f"{key}: not a dataset of FinFlow ({reason}); make one with experiments/collect.py") from error
    except Exception as error:  # zipfile and zlib raise their own kinds for a damaged archive
        if type(error).__module__ not in ("zipfile", "zlib"):
            raise
        raise DataError(f"{key}: damaged ({error}); make it again with experiments/collect.py") from error
    for name, value in wanted.items():
        if facts.get(name) != value:
            raise DataError(
                f"{key}: made with {name}={facts.get(name)!r}, this run has {value!r};"
                " make it again with experiments/collect.py"
            )
    _check_arrays(key, arrays, market, train)
    return Dataset(**arrays, facts=facts)


def _check_arrays(key: str, arrays: dict[str, NDArray[Any]], market: Market, train: Window) -> None:
    count = len(arrays["row"]) if arrays["row"].ndim else 0
    for name, dims in _FIELDS.items():
        array = arrays[name]
        if array.ndim != dims or len(array) != count or count == 0 or not np.isfinite(array).all():
            raise DataError(f"{key}: array {name} of shape {array.shape} is damaged; make it again")
    for name in ("row", "next_row"):
        if arrays[name].min() < train.start - 1 or arrays[name].max() >= train.stop:
            raise DataError(f"{key}: {name} reaches outside the training window; make it again")
    if arrays["drifted"].shape[1] != market.n or arrays["executed"].shape[1] != market.n:
        raise DataError(f"{key}: made for {arrays['drifted'].shape[1]} assets, the market has {market.n}")
    if arrays["previous"].min() < -1 or (arrays["previous"] >= np.arange(count)).any():
        raise DataError(f"{key}: array previous does not point backwards; make it again")


def _tensors(simulator: Simulator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.from_numpy(simulator.row),
        torch.from_numpy(simulator.drifted),
        torch.from_numpy(simulator.drawdown),
    )
