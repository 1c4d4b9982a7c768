"""Prices from a user's file or folder: checked, never filled.

Wide, two header rows, long form, one file per ticker; as CSV, .csv.gz or Parquet. Every layout is read into the same
tables of closes and volumes.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice, product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.columns import ADJUSTED, CLOSE, FIELDS, VOLUME, Columns, OneTicker, columns_of, long_columns, spelling
from finflow.data.csv_table import (
    SEPARATED,
    CsvTable,
    DayReader,
    FormatError,
    Records,
    check_width,
    number,
    read_as,
    read_bytes,
    table_of,
    text_rows,
)
from finflow.data.market import CASH, calendar_of, minimum_rows
from finflow.data.prices import Prices
from finflow.errors import ConfigError, DataError
from finflow.schema.sections import LEAST_HISTORY, Env, Format

_SUFFIXES = ("*.csv", "*.csv.gz", "*.parquet")


@dataclass(frozen=True)
class Sheet:
    """What a file or folder holds.

    Attributes
    ----------
    close : closes, adjusted ones where there is a choice.
    volume : on the same days and names; None where there is none.
    layout : in words.
    """

    close: CsvTable
    volume: CsvTable | None
    layout: str


def read_sheet(path: Path, form: Format) -> Sheet:
    """Read the closes, and the volumes where there are any, of a file or of a folder of one file per ticker.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do` for the first problem.
    """
    if path.is_dir():
        return _folder(path, form)
    head, records = _records(path, form)
    first = head[0][1]
    long = long_columns(path, first)
    if long is not None:
        return _long(path, first, chain(head[1:], records), long, form)
    found = columns_of(path, head)
    if len(found.close) < 2:
        name = next(iter(found.close))
        raise DataError(f"{path}:1:{name}: only one ticker; a portfolio needs at least two columns of prices")
    return _wide(path, found, chain(head[found.rows :], records), form)


def _records(path: Path, form: Format) -> tuple[list[tuple[int, list[str]]], Records]:
    """The first three rows of a file, and the others."""
    raw = read_bytes(path)
    records = _parquet_rows(path, raw) if raw.startswith(b"PAR1") else text_rows(path, raw, form)
    head = [(line, [cell.strip() for cell in cells]) for line, cells in islice(records, 3)]
    return head or [(1, [""])], records


def _parquet_rows(path: Path, raw: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows of a Parquet file as a CSV of it would have them, each number with all its digits."""
    try:
        frame = pd.read_parquet(io.BytesIO(raw), engine="pyarrow")
    except (OSError, ValueError, KeyError, NotImplementedError) as error:  # the last: Parquet that pyarrow lacks
        raise DataError(f"{path}:1:1: not to be read as Parquet ({error}); write it again, or export a CSV") from None
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    levels = frame.columns.nlevels
    for level in range(levels):
        names = [str(name) for name in frame.columns.get_level_values(level)]
        yield level + 1, names if level == 0 else ["", *names[1:]]
    columns = [_texts(frame.iloc[:, place]) for place in range(frame.shape[1])]
    for line, cells in enumerate(zip(*columns, strict=True), levels + 1):
        yield line, list(cells)


def _texts(column: pd.Series) -> list[str]:
    if pd.api.types.is_datetime64_any_dtype(column):
        whole = bool((column.dt.normalize() == column).all()) and column.dt.tz is None
        return (column.dt.strftime("%Y-%m-%d") if whole else column.astype(str)).tolist()
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan).tolist()
        if pd.api.types.is_integer_dtype(column):
            return ["" if value != value else str(int(value)) for value in values]
        return ["" if value != value else repr(value) for value in values]
    return ["" if value is None or value != value else str(value) for value in column.tolist()]


def _wide(path: Path, found: Columns, records: Records, form: Format) -> Sheet:
    """Tables of a file with a row per day."""
    volumes = tuple(f"{name} volume" for name in found.volume)
    header = (found.date, *found.close, *volumes)
    places = [0, *found.close.values(), *found.volume.values()]
    table = table_of(path, header, _picked(path, found.header, records, places), form)
    count = len(found.close)
    close = table.of(list(range(count)), tuple(found.close))
    volume = table.of(list(range(count, count + len(volumes))), tuple(found.volume)) if volumes else None
    return Sheet(close, volume, found.layout)


def _picked(path: Path, header: tuple[str, ...], records: Records, places: list[int]) -> Records:
    """Some of the cells of each row, all of which are as many as the header's."""
    for line, cells in records:
        check_width(path, line, header, cells)
        yield line, [cells[place] for place in places]


def _long(path: Path, first: list[str], records: Records, places: Mapping[str, int], form: Format) -> Sheet:
    """Tables of a file with a row per day and ticker, in any order."""
    header = tuple(name or str(place) for place, name in enumerate(first, 1))
    days_of = DayReader(path, header[places["date"]], form.date)
    day_rows: dict[date, int] = {}
    columns: dict[str, int] = {}
    cells_at: dict[tuple[int, int], int] = {}
    values: list[list[float]] = []
    fields = [places[what] for what in (CLOSE, VOLUME) if what in places]
    for line, cells in records:
        check_width(path, line, header, cells)
        day, name = days_of(line, cells[places["date"]]), cells[places["ticker"]].strip()
        if not name:
            raise DataError(
                f"{path}:{line}:{header[places['ticker']]}: a row without a ticker; name it, or delete the row"
            )
        at = day_rows.setdefault(day, len(day_rows)), columns.setdefault(name, len(columns))
        if at in cells_at:
            raise DataError(
                f"{path}:{line}:{name}: {name} has a row for {day} on line {cells_at[at]} already; keep one"
            )
        cells_at[at] = line
        values.append([number(f"{path}:{line}:{header[place]}", cells[place].strip(), form) for place in fields])
    if len(columns) < 2:
        name = next(iter(columns), header[places["ticker"]])
        raise DataError(f"{path}:2:{name}: only one ticker; a portfolio needs at least two of them")
    days = np.array(list(day_rows), dtype="datetime64[D]")
    order = np.argsort(days, kind="stable")
    rank = np.argsort(order, kind="stable")
    row, column = np.array(list(cells_at)).T
    lines = np.zeros((len(days), len(columns)), dtype=np.int64)
    lines[rank[row], column] = list(cells_at.values())
    tables: list[CsvTable] = []
    for each in np.array(values).T:
        table = np.full(lines.shape, np.nan)
        table[rank[row], column] = each
        tables.append(CsvTable(path, (header[places["date"]], *columns), lines, days[order], table))
    used = ", ".join(header[place] for place in places.values())
    return Sheet(tables[0], tables[1] if VOLUME in places else None, f"a row a day and ticker, columns {used} taken")


def _folder(path: Path, form: Format) -> Sheet:
    """Tables of a folder with a file per ticker, each named after its own."""
    files = sorted(file for pattern in _SUFFIXES for file in path.glob(pattern))
    if len(files) < 2:
        raise DataError(
            f"{path}: a directory with {len(files) or 'no'} file{'' if len(files) == 1 else 's'} of prices; name a CSV "
            "file, or put one of each ticker there"
        )
    sheets: dict[str, Sheet] = {}
    for file in files:
        name = file.name.removesuffix(".gz").rpartition(".")[0]
        if name in sheets:
            raise DataError(f"{file}: the second file of {name}; keep one")
        sheets[name] = _one_ticker(file, name, form)
    dates = np.unique(np.concatenate([sheet.close.dates for sheet in sheets.values()]))
    close = _joined(path, dates, {name: sheet.close for name, sheet in sheets.items()})
    volumes = {name: sheet.volume for name, sheet in sheets.items() if sheet.volume is not None}
    volume = _joined(path, dates, volumes) if volumes else None
    return Sheet(close, volume, f"a folder of {len(files)} files, one a ticker")


def _one_ticker(path: Path, name: str, form: Format) -> Sheet:
    """Close and volume of a file that holds one ticker's fields, or its close alone."""
    head, records = _records(path, form)
    first, rows = head[0][1], 1
    fields = {FIELDS.get(spelling(cell), ""): place for place, cell in reversed(list(enumerate(first[1:], 1)))}
    try:
        found = columns_of(path, head)
    except OneTicker:
        found = None
    if found is not None and len(found.close) == 1:
        place, volume, rows = next(iter(found.close.values())), next(iter(found.volume.values()), None), found.rows
    elif ADJUSTED in fields or CLOSE in fields:
        place, volume = fields.get(ADJUSTED, fields.get(CLOSE, 1)), fields.get(VOLUME)
    else:
        raise DataError(
            f"{path}:1:{first[1]}: none of its {len(first) - 1} columns is called Close; name the closes so"
        )
    columns = Columns(
        first[0] or "Date", tuple(first), {name: place}, {} if volume is None else {name: volume}, rows, ""
    )
    return _wide(path, columns, chain(head[rows:], records), form)


def _joined(path: Path, dates: NDArray[np.datetime64], tables: Mapping[str, CsvTable]) -> CsvTable:
    """Tables of one column each, on the days of any."""
    values = np.full((len(dates), len(tables)), np.nan)
    lines = np.zeros(values.shape, dtype=np.int64)
    for column, table in enumerate(tables.values()):
        rows = np.searchsorted(dates, table.dates)
        values[rows, column], lines[rows, column] = table.values[:, 0], table.lines
    return CsvTable(path, ("Date", *tables), lines, dates, values)


LOWEST, HIGHEST = 1e-6, 1e9
"""Prices outside are a typing error or a broken export; ratios of two inside stay within float64."""
TAIL = 5
"""Newest rows, at most, that a name may lack and still count as not quoted yet on a common calendar."""
_SHOWN = 3
_MOST = 2
"""Most formats that an error names: 03/04/2024 may be two days, and only the user knows which."""


def load_csv(env: Env) -> Prices:
    """Prices of the file or folder at `env.path`, with the volumes that it or `env.volume` holds.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`.
    """
    assert env.path is not None, "the schema asks for it"
    path = Path(env.path)
    sheet = _read(path, env.format)
    close, volume = sheet.close, sheet.volume
    if env.tickers is not None:  # other names may have gaps
        close = _chosen(close, env.tickers)
        volume = None if volume is None else _chosen(volume, env.tickers)
    _check(close)
    prices = Prices(close.dates, close.header[1:], close.values, layout=sheet.layout)
    if volume is not None and env.volume is not None:
        raise ConfigError(f"env.volume={env.volume}: the prices have volumes of their own; leave it out")
    if env.volume is not None:
        with read_as("env.volume"):
            prices = prices.with_volume(_volumes(_read(Path(env.volume), env.format).close, prices))
    elif volume is not None:
        prices = prices.with_volume(_volumes(volume, prices))
    prices = _days(close, prices, env)
    least = minimum_rows(env, calendar_of(prices.dates, env.periods_per_year))
    lower = " or lower env.min_history" if env.min_history > LEAST_HISTORY else ""
    _long_enough(close, len(prices.dates), least, f"add history{lower}")
    return prices


def _read(path: Path, form: Format) -> Sheet:
    """Read the sheet; an error names the `env.format` that would read it, if there is one."""
    try:
        return read_sheet(path, form)
    except FormatError as error:
        others = " or ".join(overrides_that_read(path, form))
        if not others:
            raise
        problem, _, remedy = str(error).rpartition("; ")
        kept = "" if SEPARATED in problem else f"{remedy}, or "  # commas between cells would clash with those in them
        raise DataError(f"{problem}; {kept}add {others}") from None


def _chosen(table: CsvTable, tickers: Sequence[str]) -> CsvTable:
    names = table.header[1:]
    here = [name for name in tickers if name in names]
    if len(here) < len(tickers):  # an unknown one is named by `sources`, as for every source
        return table
    return table.of([names.index(name) for name in here], tuple(here))


def _check(table: CsvTable) -> None:
    _check_tickers(table)
    _check_levels(table)
    _check_blanks(table)


def _long_enough(table: CsvTable, rows: int, least: int, remedy: str) -> None:
    if rows < least:
        line = table.lines.ravel()[-1] or table.dates[-1]
        raise DataError(
            f"{table.path}:{line}:{table.header[0]}: {rows} rows of prices, features and folds "
            f"need at least {least}; {remedy}"
        )


def _check_tickers(table: CsvTable) -> None:
    for ticker in table.header[1:]:
        if ticker.upper() == CASH:
            raise DataError(
                f"{table.path}:1:{ticker}: a ticker called {ticker} clashes with the portfolio's own cash; rename it"
            )


def _check_levels(table: CsvTable) -> None:
    wrong = np.argwhere(table.values <= 0)
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise table.error(
            row,
            column,
            f"price {table.values[row, column]:g} is not positive; correct it, or leave the cell blank (and add "
            "env.calendar=common where it lies between prices)",
        )
    check_range(table, "price")


def check_range(table: CsvTable, name: str) -> None:
    """Refuse a value that cannot be a price; blanks pass.

    Raises
    ------
    DataError
        Naming its cell.
    """
    wrong = np.argwhere((table.values < LOWEST) | (table.values > HIGHEST))
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise table.error(
            row,
            column,
            f"{name} {table.values[row, column]:g} is outside {LOWEST:g} ... {HIGHEST:g}; correct it, or multiply the "
            "whole column by one factor (returns stay the same)",
        )


def _check_blanks(table: CsvTable) -> None:
    present = np.isfinite(table.values)
    never = np.flatnonzero(~present.any(axis=0))
    if len(never):
        raise DataError(f"{table.path}:2:{table.header[never[0] + 1]}: no price in the whole column; remove the column")
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        raise table.error(int(empty[0]), 0, "a row without any price; delete the row")


def _gaps(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[T, d] blanks between a name's first price and its last."""
    present = np.isfinite(values)
    listed = np.maximum.accumulate(present, axis=0)
    return ~present & listed & np.maximum.accumulate(present[::-1], axis=0)[::-1]


def _refuse_gaps(table: CsvTable) -> None:
    """Refuse blanks between prices: filling them would trade names on days on which nobody could."""
    gaps = _gaps(table.values)
    if not gaps.any():
        return
    lost = int(gaps.any(axis=1).sum())
    row, column = (int(i) for i in np.argwhere(gaps)[0])
    share = lost / len(table.dates)
    allow = "" if share <= 0.05 else f" env.lost_rows={_above(share)}"
    raise table.error(
        row,
        column,
        f"a blank between prices; in all {lost} of {len(table.dates)} rows lack {_counted(table, gaps)}; add "
        f"env.calendar=common{allow}, which leaves those rows out for all (nothing is ever filled in), or remove the "
        "column",
    )


def _days(table: CsvTable, prices: Prices, env: Env) -> Prices:
    """The prices on the days that `env.calendar` asks for."""
    if env.calendar == "all":
        _refuse_gaps(table)
        return prices
    gaps = _gaps(table.values) | _unquoted(table.values)
    lost: NDArray[np.bool_] = np.any(gaps, axis=1)
    share = float(lost.mean())
    if not lost.any():
        return prices
    said = f"{int(lost.sum())} of {len(lost)} rows, which lack {_counted(table, gaps)}"
    if share > env.lost_rows:
        raise DataError(
            f"{table.path}: env.calendar=common leaves out {said}: more than env.lost_rows={env.lost_rows:g} allows; "
            f"add env.lost_rows={_above(share)} if that is meant, or leave out names"
        )
    return prices.on(~lost).warned(f"env.calendar=common left out {said}")


def _unquoted(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[T, d] blanks of the newest rows, of names that had a price shortly before."""
    present = np.isfinite(values)
    ended = ~np.maximum.accumulate(present[::-1], axis=0)[::-1]
    return ended & (ended.sum(axis=0) <= TAIL)


def _above(share: float) -> float:
    """A share in hundredths, rounded up."""
    return int(np.ceil(round(100 * share, 6))) / 100


def _counted(table: CsvTable, gaps: NDArray[np.bool_]) -> str:
    """Names by how many of their rows are blank, the most first."""
    counts = gaps.sum(axis=0)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    shown = ", ".join(f"{table.header[i + 1]} ({counts[i]})" for i in order[:_SHOWN])
    return shown + (f" and {len(order) - _SHOWN} other names" if len(order) > _SHOWN else "")


def _volumes(table: CsvTable, prices: Prices) -> NDArray[np.float64]:
    """Volumes [T, d] on the days and names of the prices, NaN where there is none."""
    wrong = np.argwhere(table.values < 0)
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise table.error(row, column, f"volume {table.values[row, column]:g} is negative; correct it")
    names = table.header[1:]
    missing = [name for name in prices.tickers if name not in names]
    if len(missing) == len(prices.tickers):
        raise DataError(f"{table.path}:1:{names[0]}: no column is one of the prices' names; name them as there")
    days, rows, used = np.intersect1d(prices.dates, table.dates, assume_unique=True, return_indices=True)
    if not len(days):
        raise DataError(f"{table.path}:{table.header[0]}: no day is one of the prices'; supply volumes on their days")
    values = np.full(prices.close.shape, np.nan)
    for column, name in enumerate(prices.tickers):
        if name in names:
            values[rows, column] = table.values[used, names.index(name)]
    return values


def overrides_that_read(path: Path, form: Format) -> list[str]:
    """Overrides of `env.format` under which the whole of a file is read, those that change the least; may be none."""
    keys = ("separator", "decimal", "thousands", "date")
    choices = [get_args(Format.model_fields[key].annotation) for key in keys]
    found: list[tuple[int, str]] = []
    for values in sorted(product(*choices), key=lambda values: _changes(form, dict(zip(keys, values, strict=True)))):
        changed = {key: value for key, value in zip(keys, values, strict=True) if getattr(form, key) != value}
        if not changed or (found and len(changed) > found[0][0]):
            continue
        try:
            read_sheet(path, Format(**dict(zip(keys, values, strict=True))))
        except (ConfigError, DataError):
            continue
        found.append((len(changed), " ".join(f"env.format.{key}={value}" for key, value in changed.items())))
    return [text for _, text in found[:_MOST]]


def _changes(form: Format, values: dict[str, str]) -> int:
    return sum(getattr(form, key) != value for key, value in values.items())
