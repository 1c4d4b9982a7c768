"""Layouts of price files: wide, two header rows, long form, one file per ticker; as CSV, .csv.gz or Parquet.

The header alone decides the layout, and every layout is read into the same tables of closes and volumes. Fields of one
ticker are not a portfolio: open, high, low and close as names are refused.
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

from finflow.data.csv_table import (
    CsvTable,
    DayReader,
    Records,
    check_width,
    number,
    read_bytes,
    read_header,
    table_of,
    text_rows,
)
from finflow.errors import DataError
from finflow.schema.env import Format

CLOSE, ADJUSTED, VOLUME = "close", "adjclose", "volume"
_FIELDS = {
    "open": "open", "high": "high", "low": "low", "close": CLOSE, "volume": VOLUME,
    "adjclose": ADJUSTED, "adjustedclose": ADJUSTED, "closeadj": ADJUSTED, "closeadjusted": ADJUSTED,
    "adjopen": "open", "adjhigh": "high", "adjlow": "low", "adjvolume": VOLUME, "vol": VOLUME,
    "dividends": "events", "stocksplits": "events", "capitalgains": "events", "repaired": "events",
}  # fmt: skip
"""Spelling of a field, lower case without blanks and marks -> what it is."""
_CLOSES = {**{name: field for name, field in _FIELDS.items() if field in (CLOSE, ADJUSTED)}, "price": CLOSE,
           "last": CLOSE, "lastprice": CLOSE, "pxlast": CLOSE, "prc": CLOSE, "settle": CLOSE}  # fmt: skip
_NAMES = {"tic", "ticker", "symbol", "tickersymbol", "asset", "instrument", "ric", "permno", "isin", "secid", "code",
          "stock", "name"}  # fmt: skip
_DATES = {"date", "day", "datadate", "tradedate", "tradingdate", "datetime", "timestamp", "time"}
_SUFFIXES = ("*.csv", "*.csv.gz", "*.parquet")
_SHOWN = 3


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


class _OneTicker(DataError):
    """A table with the fields of one ticker: not a portfolio, but valid as one file of a folder."""


@dataclass(frozen=True)
class _Columns:
    """Columns to read of a table with one row per day: by ticker, the positions of its close and volume.

    date : name of the first column. header : of all columns. rows : that the header takes.
    """

    date: str
    header: tuple[str, ...]
    close: Mapping[str, int]
    volume: Mapping[str, int]
    rows: int
    layout: str


def read_sheet(path: Path, form: Format, today: date | None = None) -> Sheet:
    """Read the closes, and the volumes where there are any, of a file or of a folder of one file a ticker.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do` for the first problem.
    """
    if path.is_dir():
        return _folder(path, form, today)
    head, records = _records(path, form)
    first = head[0][1]
    long = _long_columns(path, first)
    if long is not None:
        return _long(path, first, chain(head[1:], records), long, today, form)
    found = _columns(path, head)
    if len(found.close) < 2:
        name = next(iter(found.close))
        raise DataError(f"{path}:1:{name}: only one ticker; a portfolio needs at least two columns of prices")
    return _wide(path, found, chain(head[found.rows :], records), today, form)


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


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _columns(path: Path, head: list[tuple[int, list[str]]]) -> _Columns:
    """Columns of a table whose first column holds dates, under one header row or two."""
    first = head[0][1]
    second = head[1][1] if len(head) > 1 else []
    rest = [_plain(name) for name in first[1:]]
    if len(second) == len(first) > 1:
        below = [_plain(name) for name in second[1:]]
        for fields, names in ((rest, second[1:]), (below, first[1:])):
            if all(name in _FIELDS for name in fields) and all(names) and not any(map(_is_number, names)):
                blank = len(head) > 2 and not any(head[2][1][1:])
                return _of_fields(path, fields, names, 3 if blank else 2)
    header = read_header(path, first)
    _refuse_fields(path, header)
    places = {name: place for place, name in enumerate(header[1:], 1)}
    return _Columns(header[0], header, places, {}, 1, "a column a ticker")


def _of_fields(path: Path, fields: list[str], names: list[str], rows: int) -> _Columns:
    """Columns under a row of fields and one of tickers."""
    places: dict[str, dict[str, int]] = {}
    for place, (field, name) in enumerate(zip(fields, names, strict=True), 1):
        held = places.setdefault(_FIELDS[field], {})
        if name in held and _FIELDS[field] in (CLOSE, ADJUSTED, VOLUME):
            raise DataError(f"{path}:1:{name}: its {_FIELDS[field]} stands twice; keep one")
        held[name] = place
    close = places.get(ADJUSTED) or places.get(CLOSE)
    if close is None:
        raise DataError(
            f"{path}:1:{names[0]}: no row of closes among the fields {', '.join(dict.fromkeys(fields))}; add it"
        )
    missing = [name for name in dict.fromkeys(names) if name not in close]
    if missing:
        raise DataError(f"{path}:1:{missing[0]}: no close of it; add the column, or remove its others")
    said = "adjusted closes" if places.get(ADJUSTED) else "closes"
    volume = {name: place for name, place in places.get(VOLUME, {}).items() if name in close}
    header = ("Date", *(f"{name} {field}" for name, field in zip(names, fields, strict=True)))
    layout = f"two header rows, {said}{' and volumes' if volume else ''} taken"
    return _Columns("Date", header, close, volume, rows, layout)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse_fields(path: Path, header: tuple[str, ...]) -> None:
    """Refuse the fields of one ticker, bare or with the tickers' names, where prices of several are needed."""
    names = header[1:]
    bare = [name for name in names if _plain(name) in _FIELDS]
    if len(bare) >= 2:
        others = [name for name in names if name not in bare]
        raise _OneTicker(
            f"{path}:1:{bare[0]}: {_some(bare)} are fields of one ticker, no tickers; give a portfolio of several: a "
            "column of closes a ticker, or a folder with a file like this of each"
            + (f" (where these are tickers beside {_some(others)}, rename them: {bare[0]}1)" if others else "")
        )
    mixed = [name for name in names if _field_of(name) is not None]
    if len({_field_of(name) for name in mixed}) >= 2:
        raise DataError(
            f"{path}:1:{mixed[0]}: {_some(mixed)} mix tickers with fields of theirs; keep one column of closes a "
            "ticker, named by the ticker alone, or write the fields above the tickers, in two header rows"
        )


def _field_of(name: str) -> str | None:
    """Field that a name begins or ends with, as in AAPL_Close, Close AAPL, AAPL.Adj Close."""
    words = name.casefold().replace("'", " ").replace("(", " ").replace(")", " ").replace(",", " ")
    parts = words.replace("_", " ").replace(".", " ").replace("-", " ").replace(":", " ").split()
    if len(parts) < 2:
        return None
    for piece in (parts[-1], "".join(parts[-2:]), parts[0], "".join(parts[:2])):
        if piece in _FIELDS and len(piece) < len("".join(parts)):
            return _FIELDS[piece]
    return None


def _wide(path: Path, found: _Columns, records: Records, today: date | None, form: Format) -> Sheet:
    """Tables of a file with a row a day."""
    volumes = tuple(f"{name} volume" for name in found.volume)
    header = (found.date, *found.close, *volumes)
    places = [0, *found.close.values(), *found.volume.values()]
    table = table_of(path, header, _picked(path, found.header, records, places), today, form)
    count = len(found.close)
    close = table.of(list(range(count)), tuple(found.close))
    volume = table.of(list(range(count, count + len(volumes))), tuple(found.volume)) if volumes else None
    return Sheet(close, volume, found.layout)


def _picked(path: Path, header: tuple[str, ...], records: Records, places: list[int]) -> Records:
    """Some of the cells of each row, all of which are as many as the header's."""
    for line, cells in records:
        check_width(path, line, header, cells)
        yield line, [cells[place] for place in places]


def _long_columns(path: Path, first: list[str]) -> dict[str, int] | None:
    """Places of date, ticker, close and volume in a header of the long form; None where it is another."""
    plain = [_plain(name) for name in first]
    dates, names, closes, volumes = (
        [place for place, name in enumerate(plain) if name in known]
        for known in (_DATES, _NAMES, _CLOSES, {name for name, field in _FIELDS.items() if field == VOLUME})
    )
    if not (dates and names and closes):
        return None
    adjusted = [place for place in closes if _CLOSES[plain[place]] == ADJUSTED]
    found = {"date": dates, "ticker": names, "close": adjusted or closes, "volume": volumes}
    if [plain[place] for place in dates if plain[place] != "day"] == ["date"]:
        found["date"] = [plain.index("date")]  # `day` is the weekday's number in FinRL's files
    for what, places in found.items():
        if len(places) > 1:
            both = " and ".join(first[place] for place in places)
            raise DataError(f"{path}:1:{first[places[1]]}: {both} may both be the {what}; keep one, remove the other")
    return {what: places[0] for what, places in found.items() if places}


def _long(
    path: Path, first: list[str], records: Records, places: Mapping[str, int], today: date | None, form: Format
) -> Sheet:
    """Tables of a file with a row a day and ticker, in any order."""
    header = tuple(name or str(place) for place, name in enumerate(first, 1))
    days_of = DayReader(path, header[places["date"]], today, form.date)
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


def _folder(path: Path, form: Format, today: date | None) -> Sheet:
    """Tables of a folder with a file a ticker, each named after its own."""
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
        sheets[name] = _one_ticker(file, name, form, today)
    dates = np.unique(np.concatenate([sheet.close.dates for sheet in sheets.values()]))
    close = _joined(path, dates, {name: sheet.close for name, sheet in sheets.items()})
    volumes = {name: sheet.volume for name, sheet in sheets.items() if sheet.volume is not None}
    volume = _joined(path, dates, volumes) if volumes else None
    return Sheet(close, volume, f"a folder of {len(files)} files, one a ticker")


def _one_ticker(path: Path, name: str, form: Format, today: date | None) -> Sheet:
    """Close and volume of a file that holds one ticker's fields, or its close alone."""
    head, records = _records(path, form)
    first, rows = head[0][1], 1
    fields = {_FIELDS.get(_plain(cell), ""): place for place, cell in reversed(list(enumerate(first[1:], 1)))}
    try:
        found = _columns(path, head)
    except _OneTicker:
        found = None
    if found is not None and len(found.close) == 1:
        place, volume, rows = next(iter(found.close.values())), next(iter(found.volume.values()), None), found.rows
    elif ADJUSTED in fields or CLOSE in fields:
        place, volume = fields.get(ADJUSTED, fields.get(CLOSE, 1)), fields.get(VOLUME)
    else:
        raise DataError(
            f"{path}:1:{first[1]}: none of its {len(first) - 1} columns is called Close; name the closes so"
        )
    columns = _Columns(
        first[0] or "Date", tuple(first), {name: place}, {} if volume is None else {name: volume}, rows, ""
    )
    return _wide(path, columns, chain(head[rows:], records), today, form)


def _joined(path: Path, dates: NDArray[np.datetime64], tables: Mapping[str, CsvTable]) -> CsvTable:
    """Tables of one column each, on the days of any."""
    values = np.full((len(dates), len(tables)), np.nan)
    lines = np.zeros(values.shape, dtype=np.int64)
    for column, table in enumerate(tables.values()):
        rows = np.searchsorted(dates, table.dates)
        values[rows, column], lines[rows, column] = table.values[:, 0], table.lines
    return CsvTable(path, ("Date", *tables), lines, dates, values)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
