"""`metrics.jsonl` and `alerts.jsonl`: one JSON object a line, the truth about a run."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from finflow.artifacts.files import storage_errors, write_all

METRICS, ALERTS = "metrics.jsonl", "alerts.jsonl"


class JsonlTracker:
    """One line per `log` and per `alert`, whole and on its way to the disk when the call returns.

    The step comes first, then the row's figures in the order given. Floats are written so that reading gives
    the same bits. JSON has no NaN and no infinity: an undefined figure, whether None or not finite, is null.

    Parameters
    ----------
    run_dir : of the run; a `metrics.jsonl` or `alerts.jsonl` of an earlier attempt in it is begun anew.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        self._metrics: _Lines | None = _Lines(run_dir / METRICS)
        self._alerts: _Lines | None = None
        self._alerts_path = run_dir / ALERTS
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

    def close(self) -> None:
        """Close both files; every line is already written."""
        for lines in (self._metrics, self._alerts):
            if lines is not None:
                lines.close()
        self._metrics = self._alerts = None


class _Lines:
    """A file that grows by whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        self._size = 0

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
