"""Layouts of price files: wide, two header rows, long form, one file per ticker; as CSV, .csv.gz or Parquet.

Every layout is read into the same tables of closes and volumes.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.columns import ADJUSTED, CLOSE, FIELDS, VOLUME, Columns, OneTicker, columns_of, long_columns, spelling
from finflow.data.csv_cells import DayReader, number
from finflow.data.csv_rows import Records, check_width, read_bytes, text_rows
from finflow.data.csv_table import CsvTable, table_of
from finflow.errors import DataError
from finflow.schema.env import Format

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
