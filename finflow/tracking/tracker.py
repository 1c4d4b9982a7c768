"""All sinks of a run as one tracker; `metrics.jsonl` is the primary record, and the others may fail.

And the progress of a loop on stderr: a bar in a terminal, else a line for each tenth.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from finflow.plugins import chosen
from finflow.schema.sections import Tracking
from finflow.tracking.sink import (
    BackgroundSink,
    JsonlTracker,
    Position,
    Report,
    Row,
    RunOutcome,
    Sink,
    Start,
    number,
)
from finflow.tracking.tensorboard import TensorBoardSink
from finflow.tracking.wandb_sink import WandbSink

Advance = Callable[..., None]
"""`advance(steps, **figures)`: move on by `steps`, 1 by default, and show the figures."""


@contextlib.contextmanager
def progress(total: int, label: str, done: int = 0) -> Generator[Advance]:
    """Show the progress of `total` steps: count, speed, time left, and current figures.

    stdout is left alone, so that its last lines are what scripts read. `label` says what the steps are; `done` are
    those of an earlier process, which count neither for the speed nor for the time that is left.
    """
    console = Console(stderr=True, force_jupyter=False)  # in a notebook each line would be an output of its own
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(total, label, done, console) as advance:
            yield advance
    else:
        show = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
        yield _lines(total, label, done, show)


@contextlib.contextmanager
def _bar(total: int, label: str, done: int, console: Console) -> Generator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    # rich would send what others print on stdout through this console, that is to stderr.
    with Progress(*columns, console=console, refresh_per_second=4, redirect_stdout=False) as display:
        task = display.add_task(label, total=total, completed=done, figures="")

        def advance(steps: int = 1, /, **figures: SupportsFloat | None) -> None:
            if figures:
                display.update(task, advance=steps, figures=_shown(figures))
            else:
                display.update(task, advance=steps)

        yield advance


def _lines(total: int, label: str, done: int, emit: Callable[[str], None]) -> Advance:
    begin, start, tenths = time.monotonic(), done, 10 * done // max(total, 1)

    def advance(steps: int = 1, /, **figures: SupportsFloat | None) -> None:
        nonlocal done, tenths
        done += steps
        reached = 10 * done // max(total, 1)
        if reached <= tenths:
            return
        tenths = reached
        rate = (done - start) / max(time.monotonic() - begin, 1e-9)
        left = timedelta(seconds=round(max(total - done, 0) / rate))
        parts = [f"{label}: {done}/{total}", _rate(rate), f"{left} left", _shown(figures)]
        emit("  ".join(part for part in parts if part))

    return advance


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed))


def _rate(speed: float) -> str:
    return f"{speed:.3g} it/s" if speed < 1000 else f"{speed:.0f} it/s"


def _shown(figures: Mapping[str, SupportsFloat | None]) -> str:
    return "  ".join(f"{name} {'-' if value is None else f'{float(value):.4g}'}" for name, value in figures.items())


Build = Callable[[], Sink]
"""Makes a sink, in the sink's own thread."""
Choose = Callable[[Tracking, Path, int | None], Build | None]
"""Settings, run folder, step at which a resumed run starts -> builder of the sink; None if it is off."""


class CompositeTracker:
    """The primary tracker, whose failure ends the run, then the sinks beside it, each in a thread of its own.

    Parameters
    ----------
    sinks : by name, what makes each.
    patience : seconds that each sink has at the end.
    """

    def __init__(self, primary: JsonlTracker, sinks: Mapping[str, Build], patience: float) -> None:
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
        """Close the sinks, then the primary tracker; a second call does nothing.

        All sinks together have `within` seconds; None leaves each its patience.
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

    `since` and `step` are those of the checkpoint that the run goes on from; rows and alerts after it are taken back.
    For a `StorageError` see `JsonlTracker`.
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
