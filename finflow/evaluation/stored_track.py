"""The track of an evaluated policy, read from its files and verified by the ledger."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finflow.data.market import Market, Window
from finflow.envs.ledger import book
from finflow.errors import StorageError
from finflow.evaluation.result import Floats, Track
from finflow.evaluation.task import POLICY
from finflow.io.files import storage_errors

SAME = 1e-9


def read_track(folder: Path, market: Market, window: Window, cost_rate: float) -> Track:
    """The policy's track over `window` from `weights.csv` and `returns.csv` in `folder`.

    Raises
    ------
    StorageError
        If a file is missing or damaged, or the weights, booked again, do not earn the returns beside them.
    """
    dates = [str(day) for day in market.dates[window.start : window.stop]]
    weights = _read(folder / "weights.csv", dates, market.assets)
    net = _read(folder / "returns.csv", dates, (POLICY,))[:, 0]
    track = _booked(weights, market, window, cost_rate)
    if not np.allclose(track.net, net, rtol=0.0, atol=SAME):
        raise StorageError(f"{folder}: weights.csv does not earn what returns.csv says; evaluate again")
    return track


def _read(path: Path, dates: Sequence[str], columns: Sequence[str]) -> Floats:
    """Columns of a table with a row a date, to the bit; `float` reads back what was written with all its digits."""
    with storage_errors(path, "read"), path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.reader(file))
    header = rows[0] if rows else []
    if any(name not in header for name in columns) or [row[:1] for row in rows[1:]] != [[day] for day in dates]:
        raise StorageError(f"{path}: not a table of this market and window; evaluate again")
    places = [header.index(name) for name in columns]
    try:
        return np.array([[float(row[place]) for place in places] for row in rows[1:]])
    except (ValueError, IndexError) as error:
        raise StorageError(f"{path}: damaged ({error}); evaluate again") from error


def _booked(weights: Floats, market: Market, window: Window, cost_rate: float) -> Track:
    rows = np.asarray(window.decisions)
    drifted = np.zeros_like(weights)
    drifted[0, -1] = 1.0
    booked = []
    for t, row in enumerate(rows):
        booked.append(book(weights[t], drifted[t], market.returns[row + 1], cost_rate))
        if t + 1 < len(rows):
            drifted[t + 1] = booked[-1].drifted
    figures = (np.array([getattr(day, name) for day in booked]) for name in ("turnover", "cost", "gross", "net"))
    return Track(POLICY, market.dates[rows + 1], weights, drifted, *figures, closures=0, year=market.calendar.year)
