"""All sinks of a run as one tracker; `metrics.jsonl` is the primary record, and the others may fail."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finflow.plugins import chosen
from finflow.schema.tracking import Tracking
from finflow.tracking.background_sink import BackgroundSink, Report
from finflow.tracking.jsonl import JsonlTracker, Position, number
from finflow.tracking.sink import Row, RunOutcome, Sink, Start, Tracker
from finflow.tracking.tensorboard import TensorBoardSink
from finflow.tracking.wandb_sink import WandbSink

Build = Callable[[], Sink]
"""Makes a sink, in the sink's own thread."""
Choose = Callable[[Tracking, Path, int | None], Build | None]
"""Settings, run folder, step at which a resumed run starts -> builder of the sink; None if it is off."""


class PrimaryTracker(Tracker, Protocol):
    """The sink that a checkpoint refers to."""

    def position(self) -> Position:
        """Where its files end, all before that on the disk."""
        ...


class CompositeTracker:
    """The primary tracker, then the sinks beside it, each in a thread of its own.

    Parameters
    ----------
    primary : the primary tracker, whose failure ends the run.
    sinks : by name, what makes each.
    patience : seconds that each sink has at the end.
    """

    def __init__(self, primary: PrimaryTracker, sinks: Mapping[str, Build], patience: float) -> None:
        self._primary = primary
        self._closed = False
        self._sinks = [BackgroundSink(name, build, patience) for name, build in sinks.items()]

    @property
    def listening(self) -> bool:
        """Whether there is any sink that takes more than rows and alerts."""
        return bool(self._sinks)

    def begin(self, start: Start) -> None:
        """Pass the facts at the start to the sinks; call it before any figure."""
        self._tell(lambda sink: sink.begin(start))

    def log(self, step_name: str, step: int, row: Row) -> None:
        """Log to the primary tracker and to every sink."""
        self._primary.log(step_name, step, row)
        numbers = {name: number(value) for name, value in row.items()}
        self._tell(lambda sink: sink.log(step_name, step, numbers))

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Hand a copy of the values to every sink."""
        self._primary.histogram(step_name, step, name, values)
        copied = np.array(values, dtype=np.float64)
        self._tell(lambda sink: sink.histogram(step_name, step, name, copied))

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Alert through every sink."""
        self._primary.alert(step_name, step, message)
        self._tell(lambda sink: sink.alert(step_name, step, message))

    def position(self) -> Position:
        """End of the primary tracker's files."""
        return self._primary.position()

    def finish(self, outcome: RunOutcome) -> None:
        """Pass the results to every sink."""
        self._tell(lambda sink: sink.finish(outcome))

    def close(self, *, failed: bool = False, within: float | None = None) -> None:
        """Close the sinks, each within a time limit, then the primary tracker; a second call does nothing.

        Parameters
        ----------
        within : seconds that all sinks have together; None leaves each its patience.
        """
        if self._closed:
            return
        self._closed = True
        begin = time.monotonic()
        for sink in self._sinks:
            sink.close(failed=failed, within=None if within is None else max(within - time.monotonic() + begin, 0.0))
        self._primary.close()

    def _tell(self, report: Report) -> None:
        for sink in self._sinks:
            sink.tell(report)


def make_tracker(
    tracking: Tracking, run_dir: Path, since: Position | None = None, step: int | None = None
) -> CompositeTracker:
    """Sinks that the config asks for, writing into `run_dir`.

    Parameters
    ----------
    since, step : of the checkpoint that the run goes on from; rows and alerts after it are taken back.

    Raises
    ------
    StorageError
        If `metrics.jsonl` cannot be written, now or at a later `log`.
    """
    asked = {name: choose(tracking, run_dir, step) for name, choose in SINKS.items()}
    sinks = {name: build for name, build in asked.items() if build is not None}
    for name in tracking.sinks:
        sinks[name] = partial(chosen("tracking.sinks", name, {}, "trackers"), run_dir, step)
    return CompositeTracker(JsonlTracker(run_dir, since), sinks, tracking.close_timeout)


def _tensorboard(tracking: Tracking, run_dir: Path, step: int | None) -> Build | None:
    return (lambda: TensorBoardSink(run_dir / "tensorboard", step)) if tracking.tensorboard else None


def _wandb(tracking: Tracking, run_dir: Path, step: int | None) -> Build | None:
    wandb = tracking.wandb
    return None if wandb is None else lambda: WandbSink(wandb, run_dir)


SINKS: dict[str, Choose] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""Every kind of sink, by name."""
