"""Sinks of a run's figures: their interfaces, `metrics.jsonl` (the primary record), the thread of a sink, warnings.

`metrics.jsonl` and `alerts.jsonl` hold one JSON object per line. Every other sink runs in a thread of its own, so that
its failures and delays never affect training. A warning is one line on stderr, printed once.
"""

import contextlib
import gc
import hashlib
import json
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from finflow.errors import StorageError
from finflow.io.files import storage_errors, write_all

_said: set[str] = set()


def warn(message: str) -> None:
    """Print `warning: MESSAGE` to stderr as one line, unless this process has printed it before."""
    line = " ".join(message.split())
    if line in _said:
        return
    _said.add(line)
    with contextlib.suppress(OSError):  # a closed stderr must not end a training run
        print(f"warning: {line}", file=sys.stderr, flush=True)


Row = Mapping[str, SupportsFloat | None]
"""Figures of one step by name; None is an undefined figure."""


class Tracker(Protocol):
    """Receives the reports of a training loop; it never changes a result."""

    def log(self, step_name: str, step: int, row: Row) -> None:
        """Take the figures of step number `step` of the kind `step_name` ("epoch", "episode")."""

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Take the distribution of `values`, of any shape; a sink without histograms ignores it."""

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Take a warning about the run, one line."""

    def close(self) -> None:
        """Write what is left; a second call does nothing."""


@dataclass(frozen=True)
class Start:
    """Facts about a run at its start.

    Attributes
    ----------
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
    figures : makes plotly figures by name; called by a sink that shows them, in that sink's own time.
    """

    summary: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    figures: Callable[[], Mapping[str, Any]] = dict


class Sink:
    """A secondary tracker; this base class does nothing. Its methods are called in one thread, in order.

    A sink may fail or hang (see `BackgroundSink`). It receives copies, which it may change.
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


BACKLOG = 4096
"""Longest queue of reports; a sink that falls further behind is given up."""

Report = Callable[[Sink], None]

LEFT: list[threading.Thread] = []
"""Threads that were given up: nothing waits for them any more, not even the end of the process."""


class BackgroundSink:
    """Passes reports to a sink, in order and without waiting, until it fails, falls behind or hangs.

    Parameters
    ----------
    name : for the warning that says why it was given up.
    build : makes the sink, in the thread, so that the run does not wait for its imports.
    patience : seconds that `close` waits for it.
    """

    def __init__(self, name: str, build: Callable[[], Sink], patience: float) -> None:
        self._name, self._build, self._patience = name, build, patience
        self._reports: queue.Queue[Report | None] = queue.Queue(BACKLOG)
        self._sink: Sink | None = None
        self._over = False
        self._thread = threading.Thread(target=self._work, name=f"tracking.{name}", daemon=True)
        self._thread.start()

    def tell(self, report: Report) -> None:
        """Queue a report for the sink; returns at once."""
        if self._over:
            return
        try:
            self._reports.put_nowait(report)
        except queue.Full:
            self._give_up(f"{BACKLOG} reports behind")

    def close(self, *, failed: bool, within: float | None = None) -> None:
        """Have the sink write what is left, and wait for it, `within` seconds at most; a second call does nothing."""
        if self._over:
            return
        patience = self._patience if within is None else min(self._patience, within)

        def last(sink: Sink) -> None:
            sink.close(failed=failed)
            self._over = True

        self.tell(last)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._give_up(f"not done {patience:.3g} s after the run")
        self._over = True

    def _work(self) -> None:
        try:
            self._sink = self._build()
            while not self._over:
                report = self._reports.get()
                if report is not None and not self._over:
                    report(self._sink)
        except Exception as error:  # noqa: BLE001 - whatever a tracking library raises, training goes on
            if not self._over:
                self._switch_off(" ".join(str(error).split()) or type(error).__name__)

    def _give_up(self, reason: str) -> None:
        """Leave the thread to itself: it ends with the process, or at its next report."""
        LEFT.append(self._thread)
        self._switch_off("; ".join(filter(None, (reason, self._sink.remains() if self._sink else ""))))
        with self._reports.mutex:
            self._reports.queue.clear()
        self._reports.put_nowait(None)  # wakes a thread that waits
        if self._sink is not None:
            self._sink.abandon()

    def _switch_off(self, reason: str) -> None:
        self._over = True
        warn(f"tracking.{self._name}: switched off for the rest of the run ({reason}); metrics.jsonl goes on")


def end_process(code: int) -> NoReturn:
    """End the process with `code`, at once if a thread that was given up still runs.

    Python ends such a thread when it next asks for the interpreter; one that comes back from a library's native code
    takes the process down with it (SIGABRT or SIGSEGV) after a run that went well. The last garbage
    collection is skipped too: it takes a second or more of processor time, a minute on a busy machine.
    """
    if any(thread.is_alive() for thread in LEFT):
        with contextlib.suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    gc.freeze()
    sys.exit(code)


METRICS, ALERTS = "metrics.jsonl", "alerts.jsonl"


class Mark(NamedTuple):
    """End of a file: its length, and the SHA-256 of what is before it."""

    bytes: int
    sha256: str


Position = Mapping[str, Mark]
"""Where `metrics.jsonl` and `alerts.jsonl` end, by name."""


class JsonlTracker:
    """One line per `log` and per `alert`, whole and on its way to the disk when the call returns.

    The step comes first, then the row's figures in the order given. Floats are written so that reading gives
    the same bits. JSON has no NaN and no infinity: an undefined figure, whether None or not finite, is null.

    Parameters
    ----------
    since : where a checkpoint left both files; what was written after it is cut off. None begins them anew.

    Raises
    ------
    StorageError
        If the files cannot be written, now or later, or are not those of the checkpoint.
    """

    def __init__(self, run_dir: Path, since: Position | None = None) -> None:
        reason = None if since is None else differs(run_dir, since)
        if reason is not None:
            raise StorageError(reason)
        kept = {name: since[name].bytes if since else 0 for name in (METRICS, ALERTS)}
        self._metrics, self._alerts = (_Lines(run_dir / name, size) for name, size in kept.items())
        self._metrics.open()

    def log(self, step_name: str, step: int, row: Row) -> None:
        """Append a row; where that fails, the lines before it stay whole."""
        self._metrics.append({step_name: step, **{name: number(value) for name, value in row.items()}})

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Do nothing: a row holds figures."""

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Append to `alerts.jsonl`, which is made with the first alert."""
        self._alerts.append({step_name: step, "message": " ".join(message.split())})

    def position(self) -> Position:
        """Where both files end now; what is before that end is on the disk when the call returns."""
        return {METRICS: self._metrics.mark(), ALERTS: self._alerts.mark()}

    def close(self) -> None:
        """Close both files; every line is already written."""
        self._metrics.close()
        self._alerts.close()


def differs(run_dir: Path, since: Position) -> str | None:
    """One line on how the files of `run_dir` differ from those at `since`; None if they do not."""
    for name, mark in since.items():
        path = run_dir / name
        if mark.bytes == 0:
            continue
        with storage_errors(path, "read"), path.open("rb") as file:
            start = file.read(mark.bytes)
        if len(start) < mark.bytes:
            return f"{path}: cut short: {len(start)} bytes where the checkpoint left {mark.bytes}"
        if hashlib.sha256(start).hexdigest() != mark.sha256:
            return f"{path}: damaged: not as the checkpoint left it"
    return None


class _Lines:
    """A file that grows by whole lines, after its first `size` bytes; one that holds none is made when it is opened."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._digest = path, size, hashlib.sha256()
        self._descriptor: int | None = None
        if size:
            self.open()
            return
        with storage_errors(path, "written"):
            path.unlink(missing_ok=True)

    def open(self) -> int:
        if self._descriptor is None:
            with storage_errors(self._path, "written"):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # No link is followed: what lies outside the run folder is never cut.
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
                self._descriptor = os.open(self._path, flags, 0o644)
                os.ftruncate(self._descriptor, self._size)
                self._digest = hashlib.sha256(os.pread(self._descriptor, self._size, 0))
        return self._descriptor

    def append(self, value: Mapping[str, Any]) -> None:
        data = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
        descriptor = self.open()
        with storage_errors(self._path, "written"):
            try:
                write_all(descriptor, data)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._size)  # half a line would make the file unreadable
                raise
        self._size += len(data)
        self._digest.update(data)

    def mark(self) -> Mark:
        if self._descriptor is not None:
            with storage_errors(self._path, "written"):
                os.fsync(self._descriptor)
        return Mark(self._size, self._digest.hexdigest())

    def close(self) -> None:
        if self._descriptor is not None:
            with storage_errors(self._path, "written"):
                os.close(self._descriptor)
            self._descriptor = None


def number(value: SupportsFloat | None) -> float | int | None:
    """A figure as JSON can say it: None where it is undefined or not finite."""
    if value is None:
        return None
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
