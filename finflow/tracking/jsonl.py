"""`metrics.jsonl` and `alerts.jsonl`: the primary record of a run, one JSON object per line."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from finflow.errors import StorageError
from finflow.io.files import storage_errors, write_all

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
    run_dir : of the run.
    since : where a checkpoint left both files; what was written after it is cut off. None begins them anew.

    Raises
    ------
    StorageError
        If the folder cannot be written, or the files are not those of the checkpoint.
    """

    def __init__(self, run_dir: Path, since: Position | None = None) -> None:
        reason = None if since is None else differs(run_dir, since)
        if reason is not None:
            raise StorageError(reason)
        self._alerts_path = run_dir / ALERTS
        self._metrics: _Lines | None = _Lines(run_dir / METRICS, since[METRICS].bytes if since else 0)
        self._alerts: _Lines | None = None
        if since is not None and since[ALERTS].bytes:
            self._alerts = _Lines(self._alerts_path, since[ALERTS].bytes)
            return
        with storage_errors(self._alerts_path, "written"):
            self._alerts_path.unlink(missing_ok=True)

    def log(self, step_name: str, step: int, row: Mapping[str, SupportsFloat | None]) -> None:
        """Append a row.

        Raises
        ------
        StorageError
            If it cannot be written; the lines before it stay whole.
        ValueError
            If the tracker is closed, or the row names its own step.
        """
        if self._metrics is None:
            raise ValueError("log: the tracker is closed")
        if step_name in row:
            raise ValueError(f"log: {step_name!r} is the step, it cannot be a figure as well")
        self._metrics.append({step_name: step, **{name: number(value) for name, value in row.items()}})

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Do nothing: a row holds figures."""

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Append to `alerts.jsonl`, which is made with the first alert.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        if self._metrics is None:
            raise ValueError("alert: the tracker is closed")
        if self._alerts is None:
            self._alerts = _Lines(self._alerts_path)
        self._alerts.append({step_name: step, "message": " ".join(message.split())})

    def position(self) -> Position:
        """Where both files end now; what is before that end is on the disk when the call returns."""
        nothing = Mark(0, hashlib.sha256().hexdigest())
        return {
            METRICS: nothing if self._metrics is None else self._metrics.mark(),
            ALERTS: nothing if self._alerts is None else self._alerts.mark(),
        }

    def close(self) -> None:
        """Close both files; every line is already written."""
        for lines in (self._metrics, self._alerts):
            if lines is not None:
                lines.close()
        self._metrics = self._alerts = None


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
    """A file that grows by whole lines, after the first `size` bytes that it may hold already."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path, self._size = path, size
        with storage_errors(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # No link is followed: what lies outside the run folder is never cut.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            os.ftruncate(self._descriptor, size)
            self._digest = hashlib.sha256(os.pread(self._descriptor, size, 0))

    def append(self, value: Mapping[str, Any]) -> None:
        data = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with storage_errors(self._path, "written"):
            try:
                write_all(self._descriptor, data)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)  # half a line would make the file unreadable
                raise
        self._size += len(data)
        self._digest.update(data)

    def mark(self) -> Mark:
        with storage_errors(self._path, "written"):
            os.fsync(self._descriptor)
        return Mark(self._size, self._digest.hexdigest())

    def close(self) -> None:
        with storage_errors(self._path, "written"):
            os.close(self._descriptor)


def number(value: SupportsFloat | None) -> float | int | None:
    """A figure as JSON can say it: None where it is undefined or not finite."""
    if value is None:
        return None
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
