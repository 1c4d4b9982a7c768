"""What a training loop needs beside an agent and its data: schedules, means of metrics, signals, checkpoints."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import Checkpointable, Stateful, all_reduce_max
from finflow.artifacts.checkpoints import Checkpoints, Found
from finflow.errors import DivergedError, Interrupted, StorageError
from finflow.schema.sections import Checkpoint
from finflow.tracking.sink import Tracker
from finflow.training.monitor import Figures, Monitor


def linear(ends: Sequence[float], progress: float) -> float:
    """From ends[0] to ends[1] as progress goes from 0 to 1."""
    start, end = ends
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine (phase 1's learning rate)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


class Averages(Stateful):
    """Running means of an agent's metrics; syncs with the device only in `means`."""

    STATE = ("_sums", "_counts")

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add one update's metrics."""
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, where: str) -> dict[str, float]:
        """Mean of every metric so far.

        Raises
        ------
        DivergedError
            Naming a metric that is not finite; the message begins with `where`.
        """
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise DivergedError(f"{where}: {name} is not finite; lower algo.lr or raise algo.batch_size")
        return means


class Stop:
    """The signal that a run received, if any."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """Record the signal; a second one changes nothing."""
        self.asked = self.asked or signal.Signals(number)


@contextlib.contextmanager
def stop_when_asked() -> Generator[Stop]:
    """Within the block a signal only sets a flag, which a loop reads at its pauses (in the main thread alone).

    The loop raises `Interrupted` itself, when it has saved a checkpoint.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Session(Protocol):
    """What the loop of either phase needs."""

    monitor: Monitor

    @property
    def tracker(self) -> Tracker:
        """Takes a row of figures per epoch or episode."""
        ...

    def evaluate(self, done: int, /) -> Figures:
        """Validation figures of the agent as it stands, after `done` epochs or episodes."""
        ...

    def pause(self) -> None:
        """Called after every step: the run can be left here and resumed to the bit."""


class OnlineSession(Session, Protocol):
    """What the loop of phase 2 needs besides."""

    def summarise(self, net: NDArray[np.float64], turnover: NDArray[np.float64]) -> Figures:
        """Return, Sharpe ratio, CVaR and turnover of an episode, from its days [L]."""
        ...

    def before_cql(self) -> None:
        """Called once, when the critic's own warm-up ends."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Counts the seconds of a named phase."""
        ...


class Checkpointer:
    """Saves a run when a checkpoint is due, and ends it after a signal.

    Parameters
    ----------
    parts : by name, all that changes while the run goes on; torch's global random streams, which dropout draws from,
        are saved beside them.
    facts : called at every save; plain data to store beside the parts.
    check : raises `DivergedError` if the run is not worth saving; the last good checkpoint stays.
    phase : context manager that counts the seconds of a named phase.
    """

    def __init__(
        self,
        store: Checkpoints,
        settings: Checkpoint,
        stop: Stop,
        parts: Mapping[str, Checkpointable | torch.Generator],
        facts: Callable[[], Mapping[str, Any]],
        check: Callable[[], None],
        phase: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.store, self.settings, self.stop = store, settings, stop
        self.parts, self.facts, self.check, self.phase = parts, facts, check, phase
        self._at: tuple[str, int] = ("", 0)
        self._path: Path | None = None  # checkpoint of the current state
        self._best = False

    def restore(self, found: Found) -> None:
        """Give every part the state that it had when `found` was saved.

        Raises
        ------
        StorageError
            If the checkpoint is of other parts, as those of another version may be.
        """
        try:
            for name, part in self.parts.items():
                state = found.state[name]
                if isinstance(part, torch.Generator):
                    part.set_state(state)
                else:
                    part.load_state_dict(state)
            torch.set_rng_state(found.state["torch"]["cpu"])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state_all(found.state["torch"]["cuda"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise StorageError(
                f"{found.path}: does not fit this version of FinFlow ({type(error).__name__}: {error}); start a new run"
            ) from error
        self.store.go_on_from(found)
        self._at, self._path = (str(found.facts["unit"]), int(found.facts["progress"])), found.path

    def found_best(self) -> None:
        """Make the next pause save the best so far, if `checkpoint.save_best` is set."""
        self._best = self.settings.save_best

    def pause(self, unit: str, progress: int, *, regular: bool = True) -> None:
        """Save if `progress` has passed a multiple of the interval, after a new best, or after a signal.

        `regular` says whether the interval counts in this unit.

        Raises
        ------
        Interrupted
            After the checkpoint, if a signal asked for it.
        """
        self._path = None
        number = all_reduce_max(self.stop.asked or 0)  # all processes stop at the same update
        self.stop.asked = signal.Signals(number) if number else None
        last = self._at[1] if self._at[0] == unit else 0
        due = regular and progress // self.settings.interval > last // self.settings.interval
        path = self.save(unit, progress) if due or self._best or self.stop.asked else None
        if self.stop.asked:
            raise Interrupted(
                f"stopped by {self.stop.asked.name} at {unit} {progress}, checkpoint {path};"
                " to go on, give the same command and resume=true",
                self.stop.asked,
            )

    def finish(self, unit: str, progress: int) -> None:
        """Save the end of training, if `checkpoint.save_latest` is set, so that more episodes can follow."""
        if self.settings.save_latest:
            self.save(unit, progress)

    def save(self, unit: str, progress: int) -> Path:
        """Save the current state, unless it is saved already."""
        if self._path is not None:
            return self._path
        self.check()
        with self.phase("checkpoints"):
            state: dict[str, Any] = {
                name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
                for name, part in self.parts.items()
            }
            cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
            state["torch"] = {"cpu": torch.get_rng_state(), "cuda": cuda}
            facts = {**self.facts(), "unit": unit, "progress": progress}
            self._path = self.store.save(unit, progress, state, facts, best=self._best)
        self._at, self._best = (unit, progress), False
        return self._path
