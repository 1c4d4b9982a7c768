"""Sinks of a run's figures behind one Protocol; `metrics.jsonl` is the truth, the others may fail."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from finflow.schema import Tracking
from finflow.tracking.console import warn
from finflow.tracking.jsonl import JsonlTracker
from finflow.tracking.tensorboard import TensorBoardTracker

Row = Mapping[str, SupportsFloat | None]
"""Figures of one step by name; None is an undefined figure."""


class Tracker(Protocol):
    """Where a training loop says how it goes; what it does never changes a result."""

    def log(self, step_name: str, step: int, row: Row) -> None:
        """Take the figures of step number `step` of the kind `step_name` ("epoch", "episode")."""
        ...

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Take the distribution of `values`, of any shape; a sink without histograms ignores it."""
        ...

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Take a warning about the run, one line."""
        ...

    def close(self) -> None:
        """Write what is left; a second call does nothing."""
        ...


class CompositeTracker:
    """The truth, then the sinks beside it; a sink that fails is dropped with one warning.

    Parameters
    ----------
    truth : its failure is the run's.
    sinks : by name, in the order in which they are told.
    """

    def __init__(self, truth: Tracker, sinks: Mapping[str, Tracker]) -> None:
        self._truth = truth
        self._sinks = dict(sinks)

    def log(self, step_name: str, step: int, row: Row) -> None:
        """Log to every sink."""
        self._truth.log(step_name, step, row)
        self._tell(lambda sink: sink.log(step_name, step, row))

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Hand the values to every sink."""
        self._truth.histogram(step_name, step, name, values)
        self._tell(lambda sink: sink.histogram(step_name, step, name, values))

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Alert through every sink."""
        self._truth.alert(step_name, step, message)
        self._tell(lambda sink: sink.alert(step_name, step, message))

    def close(self) -> None:
        """Close the sinks, then the truth."""
        self._tell(lambda sink: sink.close())
        self._truth.close()

    def _tell(self, action: Callable[[Tracker], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                action(sink)
            except Exception as error:  # noqa: BLE001 - whatever a tracking library raises, training goes on
                del self._sinks[name]
                _drop(name, error)


def make_tracker(tracking: Tracking, run_dir: Path) -> CompositeTracker:
    """Sinks that the config asks for, writing into `run_dir`.

    Raises
    ------
    StorageError
        If `metrics.jsonl` cannot be written, now or at a later `log`.
    """
    truth = JsonlTracker(run_dir)
    sinks: dict[str, Tracker] = {}
    wanted: Sequence[tuple[str, bool, Callable[[Path], Tracker]]] = (
        ("tensorboard", tracking.tensorboard, TensorBoardTracker),
    )
    for name, on, build in wanted:
        if not on:
            continue
        try:
            sinks[name] = build(run_dir / name)
        except Exception as error:  # noqa: BLE001 - as above
            _drop(name, error)
    return CompositeTracker(truth, sinks)


def _drop(name: str, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    warn(f"tracking.{name}: switched off for the rest of the run ({reason}); metrics.jsonl goes on")
