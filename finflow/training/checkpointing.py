"""Checkpoints of a run: their timing, and the complete state for an exact continuation."""

import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from finflow.agents.base import all_reduce_max
from finflow.artifacts.checkpoints import Checkpoints, Found
from finflow.errors import Interrupted, StorageError
from finflow.schema.sections import Checkpoint
from finflow.training.interrupts import Stop

TORCH = "torch"
"""Name of torch's global random streams in a checkpoint; dropout draws from them."""


class Checkpointable(Protocol):
    """A part of a run whose state can be taken and given back."""

    def state_dict(self) -> dict[str, Any]:
        """Nested tensors, arrays and plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` gave."""
        ...


class Checkpointer:
    """Saves a run when a checkpoint is due, and ends it after a signal.

    Parameters
    ----------
    parts : by name, all that changes while the run goes on.
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
            torch.set_rng_state(found.state[TORCH]["cpu"])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state_all(found.state[TORCH]["cuda"])
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

        Parameters
        ----------
        regular : whether the interval counts in this unit.

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
            facts = {**self.facts(), "unit": unit, "progress": progress}
            self._path = self.store.save(unit, progress, self._state(), facts, best=self._best)
        self._at, self._best = (unit, progress), False
        return self._path

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
            for name, part in self.parts.items()
        }
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {**state, TORCH: {"cpu": torch.get_rng_state(), "cuda": cuda}}
