"""A user's signals: one CSV per signal, laid out like prices; each value is used `env.signals_lag` days later."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.data.csv_rows import read_as
from finflow.data.csv_source import HIGHEST
from finflow.data.csv_table import CsvTable, read_table
from finflow.data.prices import Prices
from finflow.errors import DataError
from finflow.schema.env import Env

KEY = "env.signals"
SMALLEST_SPREAD = 1e-3
"""Features of a smaller spread are not scaled up (see `scaling.MIN_STD`)."""
OFF_CENTRE = 1.0
"""If 0 lies this many standard deviations from the mean, a missing value, which counts as 0, misleads."""
_NAME = re.compile(r"\w[\w.+-]*")
_SHOWN = 3


def add_signals(prices: Prices, env: Env) -> Prices:
    """`prices` with the signals of `env.signals`: one CSV, or a folder of them; the file's name is the signal's.

    A row of a file is dated with the day whose close its values belong to, and is used at the close
    `env.signals_lag` rows later: 0 says that they are known before that day's close. Blank cells are missing
    values; nothing is carried forward, a row counts for its own day alone.

    Raises
    ------
    DataError
        One line `env.signals=file:row:column: what is wrong; what to do`.
    """
    assert env.signals is not None, "asked for only then"
    signals, warnings = dict(prices.signals), list(prices.warnings)
    for name, path in signal_files(Path(env.signals)).items():
        if name in signals:
            raise DataError(f"{KEY}={path}: the source has a signal called {name} of its own; rename the file")
        with read_as(KEY):
            table = read_table(path)
            values, notes = _aligned(table, prices)
        signals[name] = _lagged(values, env.signals_lag)
        warnings += [f"signal {name}: {note}" for note in notes]
    return replace(prices, signals=signals, warnings=tuple(warnings))


def signal_files(path: Path) -> dict[str, Path]:
    """Files by the names of their signals, in the order of the names.

    Raises
    ------
    DataError
        If a folder holds none, or a file has a name that no signal can have.
    """
    paths = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"{KEY}={path}: no .csv in this folder; put a CSV a signal there")
    for file in paths:
        if not _NAME.fullmatch(file.stem):
            raise DataError(f"{KEY}={file}: names the signal {file.stem!r}; use letters, digits and . _ + - alone")
    return {file.stem: file for file in paths}


def _aligned(table: CsvTable, prices: Prices) -> tuple[NDArray[np.float64], list[str]]:
    """Values [T, d] on the days and names of the prices, NaN where there is none, and what a user should know."""
    names, notes = table.header[1:], list[str]()
    here = [name for name in prices.tickers if name in names]
    if not here:
        raise DataError(f"{table.path}:1:{names[0]}: no column is one of the prices' names, {_some(prices.tickers)}")
    unknown = [name for name in names if name not in prices.tickers]
    if unknown:
        notes.append(f"{len(unknown)} columns are not among the prices ({_some(unknown)}); not used")
    without = [name for name in prices.tickers if name not in names]
    if without:
        notes.append(f"{len(without)} names have no column ({_some(without)}); missing, which counts as 0")
    rows, used = _rows(table, prices, notes)
    values = np.full(prices.close.shape, np.nan)
    columns, theirs = (np.array([found.index(name) for name in here]) for found in (prices.tickers, names))
    values[np.ix_(rows, columns)] = table.values[np.ix_(used, theirs)]
    _check_values(table, values[:, columns])
    notes += _scale_notes(values[np.isfinite(prices.close)])
    return values, notes


def _rows(table: CsvTable, prices: Prices, notes: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the prices, and of the table, that are of the same day."""
    days, rows, used = np.intersect1d(prices.dates, table.dates, assume_unique=True, return_indices=True)
    if not len(days):
        raise DataError(
            f"{table.path}:{table.lines[0]}:{table.header[0]}: {table.dates[0]} to {table.dates[-1]} share no day "
            f"with the prices, {prices.dates[0]} to {prices.dates[-1]}; supply rows on their days"
        )
    inside = table.dates[(table.dates >= prices.dates[0]) & (table.dates <= prices.dates[-1])]
    odd = np.setdiff1d(inside, days)
    if len(odd):
        notes.append(f"{len(odd)} rows are on days without prices ({odd[0]} the first); not used")
    skipped = int(rows[-1] - rows[0]) + 1 - len(rows)
    if skipped:
        first = prices.dates[np.setdiff1d(np.arange(rows[0], rows[-1]), rows)[0]]
        notes.append(f"no row for {skipped} days of the prices ({first} the first); missing, which counts as 0")
    return rows, used


def _check_values(table: CsvTable, values: NDArray[np.float64]) -> None:
    wrong = np.argwhere(np.abs(table.values) > HIGHEST)
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise table.error(row, column, f"{table.values[row, column]:g} is beyond {HIGHEST:g}; scale the signal down")
    known = values[np.isfinite(values)]
    where = f"{table.path}:{table.lines[0]}:{table.header[1]}"
    if not len(known):
        raise DataError(f"{where}: no value on any day of the prices; supply values, or remove the file")
    if known.min() == known.max():
        raise DataError(f"{where}: {known[0]:g} in every cell, a constant says nothing; remove the file")


def _scale_notes(cells: NDArray[np.float64]) -> list[str]:
    known = cells[np.isfinite(cells)]
    spread, mean = float(known.std()), float(known.mean())
    notes: list[str] = []
    if spread < SMALLEST_SPREAD:
        notes.append(f"a spread of {spread:.2g} is too small to be scaled up; multiply the file to one of about 1")
    elif len(known) < len(cells) and abs(mean) > OFF_CENTRE * spread:
        notes.append(
            f"{100 * (1 - len(known) / len(cells)):.0f} % of the values are missing and count as 0, far from the mean "
            f"of {mean:.3g}; centre the signal at 0"
        )
    return notes


def _lagged(values: NDArray[np.float64], days: int) -> NDArray[np.float64]:
    """Values of `days` rows ago."""
    result = np.full(values.shape, np.nan)
    result[days:] = values[: len(values) - days] if days < len(values) else result[days:]
    return result


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
