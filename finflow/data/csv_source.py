"""Prices from a user's file or folder: checked, never filled.

Wide, two header rows, long form, one file per ticker; as CSV, .csv.gz or Parquet.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from finflow.data.market import CASH, Floats, calendar_of, minimum_rows
from finflow.data.prices import Prices, gaps
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
    """Read the closes, and the volumes where there are any, of a file or of a folder; raises as `load_csv`."""
    if path.is_dir():
        return _folder(path, form)
    head, records = _records(path, form)
    long = long_columns(path, head[0][1])
    if long is not None:
        return _long(path, head[0][1], chain(head[1:], records), long, form)
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
    except (OSError, ValueError, KeyError, NotImplementedError) as error:  # the last: a kind that pyarrow cannot read
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
    places = [0, *found.close.values(), *found.volume.values()]

    def picked() -> Records:
        for line, cells in records:
            check_width(path, line, found.header, cells)
            yield line, [cells[place] for place in places]

    header = (found.header[0], *found.close, *(f"{name} volume" for name in found.volume))
    table, count = table_of(path, header, picked(), form), len(found.close)
    close = table.of(list(range(count)), tuple(found.close))
    volume = table.of(list(range(count, len(places) - 1)), tuple(found.volume)) if found.volume else None
    return Sheet(close, volume, found.layout)


def _long(path: Path, first: list[str], records: Records, places: Mapping[str, int], form: Format) -> Sheet:
    """Tables of a file with a row per day and ticker, in any order."""
    header = tuple(name or str(place) for place, name in enumerate(first, 1))
    days_of = DayReader(path, header[places["date"]], form.date)
    fields = [what for what in (CLOSE, VOLUME) if what in places]
    lines: dict[str, dict[date, int]] = {}
    values: dict[str, dict[str, dict[date, float]]] = {what: {} for what in fields}
    for line, cells in records:
        check_width(path, line, header, cells)
        day, name = days_of(line, cells[places["date"]]), cells[places["ticker"]].strip()
        if not name:
            raise DataError(
                f"{path}:{line}:{header[places['ticker']]}: a row without a ticker; name it, or delete the row"
            )
        its = lines.setdefault(name, {})
        if day in its:
            raise DataError(f"{path}:{line}:{name}: {name} has a row for {day} on line {its[day]} already; keep one")
        its[day] = line
        for what in fields:
            where, cell = f"{path}:{line}:{header[places[what]]}", cells[places[what]].strip()
            values[what].setdefault(name, {})[day] = number(where, cell, form)
    if len(lines) < 2:
        name = next(iter(lines), header[places["ticker"]])
        raise DataError(f"{path}:2:{name}: only one ticker; a portfolio needs at least two of them")
    at = pd.DataFrame(lines).sort_index()
    days, rows = at.index.to_numpy().astype("datetime64[D]"), at.fillna(0).to_numpy(np.int64)
    names = (header[places["date"]], *lines)
    frames = [pd.DataFrame(values[what]).sort_index() for what in fields]
    tables = [CsvTable(path, names, rows, days, frame.to_numpy(np.float64)) for frame in frames]
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
    close = _joined(path, [sheet.close for sheet in sheets.values()])
    volumes = [sheet.volume for sheet in sheets.values() if sheet.volume is not None]
    return Sheet(close, _joined(path, volumes) if volumes else None, f"a folder of {len(files)} files, one a ticker")


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
    header, volumes = (first[0] or "Date", *first[1:]), {} if volume is None else {name: volume}
    return _wide(path, Columns(header, {name: place}, volumes, rows, ""), chain(head[rows:], records), form)


def _joined(path: Path, tables: Sequence[CsvTable]) -> CsvTable:
    """Tables of one column each, on the days of any."""
    dates = np.unique(np.concatenate([table.dates for table in tables]))
    values = np.full((len(dates), len(tables)), np.nan)
    lines = np.zeros(values.shape, dtype=np.int64)
    for column, table in enumerate(tables):
        rows = np.searchsorted(dates, table.dates)
        values[rows, column], lines[rows, column] = table.values[:, 0], table.lines
    return CsvTable(path, ("Date", *(table.header[1] for table in tables)), lines, dates, values)


LOWEST, HIGHEST = 1e-6, 1e9
"""Prices outside are a typing error or a broken export; ratios of two inside stay within float64."""
TAIL = 5
"""Newest rows, at most, that a name may lack and still count as not quoted yet on a common calendar."""
_SHOWN = 3
_MOST = 2
"""Most formats that an error names: 03/04/2024 may be two days, and only the user knows which."""


def load_csv(env: Env, _: Path | None = None) -> Prices:
    """Prices of the file or folder at `env.path`, with the volumes that it or `env.volume` holds.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`.
    """
    assert env.path is not None, "the schema asks for it"
    sheet = _read(Path(env.path), env.format)
    close, volume = sheet.close, sheet.volume
    names = close.header[1:]
    if env.tickers is not None and set(env.tickers) <= set(names):  # `build` names one that is unknown
        close = close.of([names.index(name) for name in env.tickers], tuple(env.tickers))  # others may have gaps
    _check(close)
    prices = Prices(close.dates, close.header[1:], close.values, layout=sheet.layout)
    if volume is not None and env.volume is not None:
        raise ConfigError(f"env.volume={env.volume}: the prices have volumes of their own; leave it out")
    if env.volume is not None:
        with read_as("env.volume"):
            prices = replace(prices, volume=_volumes(_read(Path(env.volume), env.format).close, prices))
    elif volume is not None:
        prices = replace(prices, volume=_volumes(volume, prices))
    prices = _days(close, prices, env)
    least = minimum_rows(env, calendar_of(prices.dates, env.periods_per_year))
    if len(prices.dates) < least:
        lower = " or lower env.min_history" if env.min_history > LEAST_HISTORY else ""
        raise DataError(
            f"{close.path}:{close.lines.ravel()[-1] or close.dates[-1]}:{close.header[0]}: {len(prices.dates)} rows of "
            f"prices, features and folds need at least {least}; add history{lower}"
        )
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


def _check(table: CsvTable) -> None:
    """Refuse a name of cash, values that are no prices, and columns and rows without any."""
    for ticker in table.header[1:]:
        if ticker.upper() == CASH:
            raise DataError(
                f"{table.path}:1:{ticker}: a ticker called {ticker} clashes with the portfolio's own cash; rename it"
            )
    table.refuse(
        table.values <= 0,
        "price",
        "is not positive; correct it, or leave the cell blank (and add env.calendar=common where it lies between "
        "prices)",
    )
    check_range(table, "price")
    present = np.isfinite(table.values)
    never = np.flatnonzero(~present.any(axis=0))
    if len(never):
        raise DataError(f"{table.path}:2:{table.header[never[0] + 1]}: no price in the whole column; remove the column")
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        raise table.error(int(empty[0]), 0, "a row without any price; delete the row")


def check_range(table: CsvTable, name: str) -> None:
    """Refuse a value that cannot be a price; blanks pass."""
    table.refuse(
        (table.values < LOWEST) | (table.values > HIGHEST),
        name,
        f"is outside {LOWEST:g} ... {HIGHEST:g}; correct it, or multiply the whole column by one factor (returns stay "
        "the same)",
    )


def _days(table: CsvTable, prices: Prices, env: Env) -> Prices:
    """The prices on the days that `env.calendar` asks for; a blank is never filled, since nobody could trade then."""
    blank = gaps(table.values)
    if env.calendar == "common":
        blank |= _unquoted(table.values)
    if not blank.any():
        return prices
    lost: NDArray[np.bool_] = np.any(blank, axis=1)
    share = float(lost.mean())
    said = f"{int(lost.sum())} of {len(lost)} rows"
    if env.calendar == "all":
        row, column = (int(i) for i in np.argwhere(blank)[0])
        allow = "" if share <= 0.05 else f" env.lost_rows={_above(share)}"
        raise table.error(
            row,
            column,
            f"a blank between prices; in all {said} lack {_counted(table, blank)}; add env.calendar=common{allow}, "
            "which leaves those rows out for all (nothing is ever filled in), or remove the column",
        )
    said += f", which lack {_counted(table, blank)}"
    if share > env.lost_rows:
        raise DataError(
            f"{table.path}: env.calendar=common leaves out {said}: more than env.lost_rows={env.lost_rows:g} allows; "
            f"add env.lost_rows={_above(share)} if that is meant, or leave out names"
        )
    warning = f"env.calendar=common left out {said}"
    return replace(prices.on(~lost), warnings=(*prices.warnings, warning))


def _unquoted(values: Floats) -> NDArray[np.bool_]:
    """[T, d] blanks of the newest rows, of names that had a price shortly before."""
    present = np.isfinite(values)
    ended = ~np.maximum.accumulate(present[::-1], axis=0)[::-1]
    return ended & (ended.sum(axis=0) <= TAIL)


def _above(share: float) -> float:
    """A share in hundredths, rounded up."""
    return int(np.ceil(round(100 * share, 6))) / 100


def _counted(table: CsvTable, blank: NDArray[np.bool_]) -> str:
    """Names by how many of their rows are blank, the most first."""
    counts = blank.sum(axis=0)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    shown = ", ".join(f"{table.header[i + 1]} ({counts[i]})" for i in order[:_SHOWN])
    return shown + (f" and {len(order) - _SHOWN} other names" if len(order) > _SHOWN else "")


def _volumes(table: CsvTable, prices: Prices) -> Floats:
    """Volumes [T, d] on the days and names of the prices, NaN where there is none."""
    names = table.header[1:]
    here = [name for name in prices.tickers if name in names]
    if not here:
        raise DataError(f"{table.path}:1:{names[0]}: no column is one of the prices' names; name them as there")
    table = table.of([names.index(name) for name in here], tuple(here))
    table.refuse(table.values < 0, "volume", "is negative; correct it")
    days, rows, used = np.intersect1d(prices.dates, table.dates, assume_unique=True, return_indices=True)
    if not len(days):
        raise DataError(f"{table.path}:{table.header[0]}: no day is one of the prices'; supply volumes on their days")
    values = np.full(prices.close.shape, np.nan)
    columns = np.array([prices.tickers.index(name) for name in here])
    values[np.ix_(rows, columns)] = table.values[used]
    return values


def overrides_that_read(path: Path, form: Format) -> list[str]:
    """Overrides of `env.format` under which the whole of a file is read, those that change the least; may be none."""
    choices = {key: get_args(field.annotation) for key, field in Format.model_fields.items()}
    forms = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    changes = [{key: value for key, value in other.items() if value != getattr(form, key)} for other in forms]
    found: list[dict[str, str]] = []
    for changed in sorted(changes, key=len):
        if changed and (not found or len(changed) == len(found[0])):
            with contextlib.suppress(ConfigError, DataError):
                read_sheet(path, Format(**{**form.model_dump(), **changed}))
                found.append(changed)
    return [" ".join(f"env.format.{key}={value}" for key, value in changed.items()) for changed in found[:_MOST]]
