"""A user's tables beside the prices: benchmark and cash, signals, and sectors of names.

A portfolio is measured against 1/N or a benchmark, and earns cash when idle.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.data.csv_source import HIGHEST, check_range
from finflow.data.csv_table import CsvTable, read_as, read_bytes, read_table, text_rows
from finflow.data.features import MIN_STD, lagged
from finflow.data.market import BUSINESS, CASH, Calendar, Dates, Floats
from finflow.data.prices import Prices
from finflow.errors import ConfigError, DataError, some
from finflow.schema.sections import Env

EQUAL_WEIGHT = "equal_weight"
FRED_MISSING = "."
"""What FRED writes on holidays; blanks are missing too."""
HIGH_YIELD = 0.08
BENCHMARK, CASH_YIELD = "env.benchmark", "env.cash_yield"


def equal_weight(returns: Floats, held: NDArray[np.bool_], idle: Floats) -> Floats:
    """Gross return of 1/N over the names held at the previous close, [T]; row 0 is 0.

    Parameters
    ----------
    returns : [T, d] simple returns from t-1 to t.
    held : [T, d] names that make up 1/N at the close of t, chosen by prices up to t.
    idle : [T] return of a day without any name.
    """
    count = held[:-1].sum(axis=1)
    total = np.where(held[:-1], returns[1:], 0.0).sum(axis=1)
    series = np.zeros(len(returns))
    series[1:] = np.where(count > 0, total / np.maximum(count, 1), idle[1:])
    return series


def own_benchmark(path: Path, dates: Dates, raw: bytes | None = None) -> Floats:
    """Returns [T] on the market's `dates` of a CSV `date,level`, read before where `raw` is given; row 0 is 0.

    A DataError where a level is missing, not positive or absurd, or a date of the market is not in the file.
    """
    with read_as(BENCHMARK):
        table = _series(path, "level", raw)
        table.refuse(table.values <= 0, "level", "is not positive; correct it")
        check_range(table, "level")
        at = np.minimum(np.searchsorted(table.dates, dates), len(table.dates) - 1)
        missing = np.flatnonzero(table.dates[at] != dates)
        if len(missing):
            line = table.lines[at[missing[0]]]
            raise DataError(
                f"{path}:{line}:{table.header[1]}: no level for {dates[missing[0]]}, a day of the market "
                f"({len(missing)} missing); add a row per trading day"
            )
    levels = table.values[at, 0]
    series = np.zeros(len(dates))
    series[1:] = levels[1:] / levels[:-1] - 1
    return series


def cash_returns(
    cash_yield: float | str, dates: Dates, raw: bytes | None = None, calendar: Calendar = BUSINESS
) -> Floats:
    """Yield of cash from t-1 to t, [T]; row 0 is 0.

    A yearly rate y earns (1 + y)^(1/252) - 1 a row where 252 rows are a year. From a CSV `date,rate` the row t-1 to
    t earns the rate last published on or before t-1: carrying a published rate forward looks at the past alone.

    Raises
    ------
    ConfigError, DataError
        If the rate is no yearly fraction, or none was published by the first day; it names the key
        `env.cash_yield`.
    """
    if isinstance(cash_yield, str):
        with read_as(CASH_YIELD):
            yearly = _published(_series(Path(cash_yield), "rate", raw, FRED_MISSING), dates)[:-1]
    elif -1 < cash_yield < 1:
        yearly = cash_yield
    else:
        raise ConfigError(f"env.cash_yield={cash_yield:g}: not a yearly fraction; write 5 % as 0.05")
    series = np.zeros(len(dates))
    series[1:] = (1 + yearly) ** (1 / calendar.year) - 1
    return series


def _published(table: CsvTable, dates: Dates) -> Floats:
    """[T] yearly rate last published on or before each day."""
    table.refuse(np.abs(table.values) >= 1, "rate", "is not a yearly fraction; write 5 % as 0.05")
    known = np.flatnonzero(np.isfinite(table.values[:, 0]))
    if not len(known):
        raise table.error(0, 0, "no rate in the whole file; supply them")
    at = np.searchsorted(table.dates[known], dates, side="right") - 1
    if at[0] < 0:
        first = int(known[0])
        raise table.error(first, 0, f"no rate on or before {dates[0]}, the market's first day; add an earlier row")
    return table.values[known[at], 0]


def cash_warnings(cash: Floats, calendar: Calendar) -> tuple[str, ...]:
    """A warning where cash earns more than `HIGH_YIELD` a year on average, as when percents are read as fractions."""
    if len(cash) < 2 or (cash <= -1).any():
        return ()
    yearly = float(np.expm1(np.log1p(cash[1:]).mean() * calendar.year))
    if yearly <= HIGH_YIELD:
        return ()
    return (
        f"env.cash_yield: cash earns {100 * yearly:.1f} % a year on average; where the rates are percents, as FRED's "
        "are, divide them by 100",
    )


def series_files(env: Env) -> dict[str, Path]:
    """Files beside the prices that shape a market, by key; their content is part of its fingerprint."""
    benchmark = env.benchmark if env.benchmark != EQUAL_WEIGHT else None
    named = {BENCHMARK: benchmark, CASH_YIELD: env.cash_yield}
    return {key: Path(name) for key, name in named.items() if isinstance(name, str)}


def read_series(env: Env) -> Mapping[str, bytes]:
    """Contents of `series_files`; a DataError, which names the key, where one cannot be read."""
    found: dict[str, bytes] = {}
    for key, path in series_files(env).items():
        with read_as(key):
            found[key] = read_bytes(path)
    return found


def _series(path: Path, name: str, raw: bytes | None, missing: str = "") -> CsvTable:
    """A table of dates and one value each, none of them blank, or where `missing` is given some."""
    table = read_table(path, raw=raw, missing=missing)
    if table.values.shape[1] != 1:
        raise DataError(f"{path}:1:{table.header[2]}: more than two columns; keep the date and the {name}")
    blank = np.flatnonzero(np.isnan(table.values[:, 0]))
    if len(blank) and not missing:
        raise table.error(int(blank[0]), 0, f"a blank {name}; supply it or delete the row")
    return table


KEY = "env.signals"
OFF_CENTRE = 1.0
"""If 0 lies this many standard deviations from the mean, a missing value, which counts as 0, misleads."""
_NAME = re.compile(r"\w[\w.+-]*")


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
        signals[name] = lagged(values, env.signals_lag)
        warnings += [f"signal {name}: {note}" for note in notes]
    return replace(prices, signals=signals, warnings=tuple(warnings))


def signal_files(path: Path) -> dict[str, Path]:
    """Files by the names of their signals, in their order; a DataError where there is none, or of such a name."""
    paths = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"{KEY}={path}: no .csv in this folder; put a CSV a signal there")
    for file in paths:
        if not _NAME.fullmatch(file.stem):
            raise DataError(f"{KEY}={file}: names the signal {file.stem!r}; use letters, digits and . _ + - alone")
    return {file.stem: file for file in paths}


def _aligned(table: CsvTable, prices: Prices) -> tuple[Floats, list[str]]:
    """Values [T, d] on the days and names of the prices, NaN where there is none, and what a user should know."""
    names, notes = table.header[1:], list[str]()
    here = [name for name in prices.tickers if name in names]
    if not here:
        raise DataError(f"{table.path}:1:{names[0]}: no column is one of the prices' names, {some(prices.tickers)}")
    unknown = [name for name in names if name not in prices.tickers]
    if unknown:
        notes.append(f"{len(unknown)} columns are not among the prices ({some(unknown)}); not used")
    without = [name for name in prices.tickers if name not in names]
    if without:
        notes.append(f"{len(without)} names have no column ({some(without)}); missing, which counts as 0")
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


def _check_values(table: CsvTable, values: Floats) -> None:
    table.refuse(np.abs(table.values) > HIGHEST, "value", f"is beyond {HIGHEST:g}; scale the signal down")
    known = values[np.isfinite(values)]
    where = f"{table.path}:{table.lines[0]}:{table.header[1]}"
    if not len(known):
        raise DataError(f"{where}: no value on any day of the prices; supply values, or remove the file")
    if known.min() == known.max():
        raise DataError(f"{where}: {known[0]:g} in every cell, a constant says nothing; remove the file")


def _scale_notes(cells: Floats) -> list[str]:
    known = cells[np.isfinite(cells)]
    spread, mean = float(known.std()), float(known.mean())
    notes: list[str] = []
    if spread < MIN_STD:
        notes.append(f"a spread of {spread:.2g} is too small to be scaled up; multiply the file to one of about 1")
    elif len(known) < len(cells) and abs(mean) > OFF_CENTRE * spread:
        notes.append(
            f"{100 * (1 - len(known) / len(cells)):.0f} % of the values are missing and count as 0, far from the mean "
            f"of {mean:.3g}; centre the signal at 0"
        )
    return notes


SECTORS_HEADER = ["ticker", "sector"]


def read_sectors(path: Path, tickers: Sequence[str]) -> tuple[str, ...]:
    """Sector of each of `tickers`, in their order; the file may hold others too.

    A DataError, `file:row:column: what is wrong; what to do`, also where one of `tickers` has no sector.
    """
    found: dict[str, str] = {}
    for line, cells in text_rows(path):
        row = [cell.strip() for cell in cells]
        if line == 1:
            if [cell.lower() for cell in row] != SECTORS_HEADER:
                raise DataError(f"{path}:1:1: the header is {','.join(row)}; write {','.join(SECTORS_HEADER)}")
            continue
        if len(row) != len(SECTORS_HEADER):
            raise DataError(f"{path}:{line}:1: {len(row)} cells; write a ticker and its sector, quoted if with commas")
        ticker, sector = row
        if not ticker or not sector:
            raise DataError(f"{path}:{line}:{SECTORS_HEADER[bool(ticker)]}: blank; name it, or delete the row")
        if ticker in found:
            raise DataError(f"{path}:{line}:ticker: {ticker} stands twice; keep one row")
        if sector.upper() == CASH:
            raise DataError(f"{path}:{line}:sector: {sector} is what cash is called; give the sector another name")
        found[ticker] = sector
    missing = [name for name in tickers if name not in found]
    if missing:
        raise DataError(f"{path}: no sector for {', '.join(missing)}; add a row for each")
    return tuple(found[name] for name in tickers)
