"""Interfaces of tracking: reports of a loop, of a stage's start and end, and the base class of sinks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, SupportsFloat | None]
"""Figures of one step by name; None is an undefined figure."""


class Tracker(Protocol):
    """Receives the reports of a training loop; it never changes a result."""

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


@dataclass(frozen=True)
class Start:
    """Facts about a run at its start.

    Attributes
    ----------
    stage, name : of the run.
    settings : those that the stage reads, nested.
    record : `run.json` as it stands: versions, commit, data fingerprint, parent.
    group : sweep that the run is a job of, or None.
    swept : key -> value as typed, of what that sweep varies.
    """

    stage: str
    name: str
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    group: str | None = None
    swept: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class RunOutcome:
    """Results of a finished run.

    Attributes
    ----------
    summary : of `summary.json`, nested.
    files : by the kind of thing they hold ("weights", "report"), each to be kept as a version of its own.
    tables : by name, the columns and their rows.
    figures : makes plotly figures by name; called by a sink that shows them, in that sink's own time.
    """

    summary: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)
    figures: Callable[[], Mapping[str, Any]] = dict


class Sink:
    """A secondary tracker; this base class does nothing. Its methods are called in one thread, in order.

    A sink may fail or hang (see `background_sink.BackgroundSink`). It receives copies, which it may change.
    """

    def begin(self, start: Start) -> None:
        """Take the facts at the start; called before any figure."""

    def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
        """Take the figures of a step."""

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Take a distribution."""

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Take a warning."""

    def finish(self, outcome: RunOutcome) -> None:
        """Take the results of a run that succeeded; called last before `close`."""

    def close(self, *, failed: bool) -> None:
        """Write what is left."""

    def abandon(self) -> None:
        """Release what would keep the process from ending; called from another thread while this one hangs."""

    def remains(self) -> str:
        """Advice for the warning about a sink that was given up: what to do with its output; called like `abandon`."""
        return ""
