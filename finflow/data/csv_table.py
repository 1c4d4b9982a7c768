"""A strict reader for a user's tables of dates and numbers: every cell is a number, blank, or an error that names it.

From bytes to rows, from rows to cells, from cells to a table; what is wrong is named by line and column.
"""

import contextlib
import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.errors import DataError
from finflow.schema.sections import PLAIN, Format

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Records = Iterable[tuple[int, list[str]]]
"""(line of the file, from 1; its cells)"""
SEPARATED = "columns are separated by"
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


class FormatError(DataError):
    """A file that another `env.format` may be able to read."""


@contextlib.contextmanager
def read_as(key: str) -> Generator[None]:
    """Put `key=` before an error in that key's file, so that the user sees which setting names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}={error}") from error


def read_bytes(path: Path) -> bytes:
    """Content of a user's file; a DataError where it is missing, a directory, or not to be read."""
    if path.is_dir():
        raise DataError(f"{path}: a directory, not a file; name a CSV file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _text(path: Path, raw: bytes) -> str:
    """Text of a file that may be gzipped."""
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}:1:1: a damaged .gz file ({error}); fetch it again, or unpack it") from None
    if not raw.strip():
        raise DataError(f"{path}:1:1: the file is empty; write a header and rows below it")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}:1:1: UTF-16, not UTF-8; save the file as UTF-8")
    if b"\0" in raw or raw.startswith((b"PK\x03\x04", b"PAR1")):
        at = max(raw.find(b"\0"), 0)
        raise DataError(f"{path}:{_place(raw, at)}: binary data, not text; export the table as a CSV in UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{_place(raw, error.start)}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _place(raw: bytes, at: int) -> str:
    """`row:column` of byte `at`, both from 1."""
    start = raw.rfind(b"\n", 0, at) + 1
    return f"{raw.count(bytes([10]), 0, at) + 1}:{raw.count(b',', start, at) + 1}"


def text_rows(path: Path, raw: bytes | None = None, form: Format = PLAIN) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row of a CSV, its header too; blank lines are allowed at the end of the file only.

    A DataError, `file:row:column: what is wrong; what to do`, comes when the row is reached.
    """
    text = _text(path, read_bytes(path) if raw is None else raw)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_SEPARATORS[form.separator], strict=True)
    blank = start = end = 0
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not any(c.strip() for c in cells):
                blank = blank or start
                continue
            if blank:
                raise DataError(f"{path}:{blank}:1: a blank line inside the table; delete it")
            yield start, cells
    except csv.Error as error:
        raise DataError(f"{path}:{end + 1}:1: not a CSV record ({error}); check its quotes") from None


def read_header(path: Path, cells: list[str]) -> tuple[str, ...]:
    """Names of the columns of a first row; a DataError where it is no header."""
    names = [c.strip() for c in cells]
    if len(names) == 1:
        separator = next((s for s in (";", "\t", "|") if s in names[0]), None)
        if separator:
            name = "tab" if separator == "\t" else separator
            raise FormatError(f"{path}:1:1: {SEPARATED} {name!r}; separate them by commas")
        raise DataError(f"{path}:1:2: only one column; put dates in the first and values in the others")
    if DAY.fullmatch(names[0]) or (names[0] and all(NUMBER.fullmatch(n) for n in names)):
        raise DataError(f"{path}:1:1: no header, the first row holds {names[0]!r}; add a row of column names")
    for number, name in enumerate(names[1:], start=2):
        if not name:
            raise DataError(f"{path}:1:{number}: a column without a name; name it or remove it")
        if name in names[1 : number - 1]:
            raise DataError(f"{path}:1:{name}: column {name!r} stands twice; keep one")
    return (names[0] or "1", *names[1:])


def check_width(path: Path, line: int, header: tuple[str, ...], cells: list[str]) -> None:
    """Refuse a row with more or fewer cells than the header; the DataError names the first of those columns."""
    if len(cells) != len(header):
        where = header[len(cells)] if len(cells) < len(header) else str(len(header) + 1)
        raise DataError(
            f"{path}:{line}:{where}: {len(cells)} cells where the header has {len(header)}; "
            "give every row a cell per column, blank where there is no value, without thousands separators"
        )


_DAY_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d")
_MIDNIGHT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]00:00(:00(\.0+)?)?(Z|[+-]\d{2}:?\d{2})?")
_PLAIN_ROW = re.compile(r"[0-9.,+-]*")
"""Plain numbers without exponent, name, underscore or foreign digits, which float() reads as they are written."""
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_DATES = {
    "DD/MM/YYYY": "%d/%m/%Y",
    "MM/DD/YYYY": "%m/%d/%Y",
    "DD.MM.YYYY": "%d.%m.%Y",
    "DD-MM-YYYY": "%d-%m-%Y",
    "YYYY/MM/DD": "%Y/%m/%d",
    "YYYYMMDD": "%Y%m%d",
}
_MARKS = {"none": "", "comma": ",", "point": ".", "space": " ", "apostrophe": "'"}
OR_BLANK = "write a number, or leave the cell blank (and add env.calendar=common where it lies between prices)"


class DayReader:
    """Dates of one column, written in one way; a time of day passes where it is midnight in every row."""

    def __init__(self, path: Path, column: str, layout: str) -> None:
        self.timed: bool | None = None
        """Whether a time of day stands in each cell; None before the first."""
        self._path, self._column, self._layout = path, column, layout
        self._last = date.today()
        self._read: dict[str, date] = {}

    def __call__(self, line: int, cell: str) -> date:
        """The day of a cell on `line`; a DataError where it is none, has a time of day, or is in the future."""
        text = cell.strip()
        if text not in self._read:
            where = f"{self._path}:{line}:{self._column}"
            day = self._parsed(where, text)
            if day > self._last:
                raise DataError(f"{where}: date {day} is in the future; remove the row or correct the date")
            self._read[text] = day
        return self._read[text]

    def _parsed(self, where: str, text: str) -> date:
        timed, midnight = _DAY_AND_TIME.match(text) is not None, _MIDNIGHT.fullmatch(text)
        if timed and midnight is None and self.timed is None:
            raise intraday(where, text)
        if timed and (midnight is None or self.timed is False):
            raise DataError(f"{where}: {text!r} has a time of day or a time zone; write the date alone, as YYYY-MM-DD")
        try:
            if self.timed and not timed:
                raise ValueError
            self.timed = timed
            if self._layout != PLAIN.date and not timed:
                return datetime.strptime(text, _DATES[self._layout]).date()
            if not timed and not DAY.fullmatch(text):
                raise ValueError
            return date.fromisoformat(text[:10])
        except ValueError:
            raise FormatError(f"{where}: {text!r} is not a date; write it as {self._layout}") from None


def intraday(where: str, text: object) -> DataError:
    """Error of a date with a time of day, or of a day that stands twice with one."""
    return DataError(
        f"{where}: '{text}' has a time of day: bars within a day are not read; keep the last of each day and write the "
        "date alone, as YYYY-MM-DD (pandas: frame.resample('D').last().dropna(how='all'))"
    )


def numbers(
    path: Path, line: int, header: tuple[str, ...], cells: list[str], form: Format, remedy: str = OR_BLANK
) -> list[float]:
    """Values of a row: all at once if every cell is plain, else cell by cell."""
    if form.decimal == "point" and _PLAIN_ROW.fullmatch(",".join(cells[1:])):
        try:
            values = [float(c) if c else math.nan for c in cells[1:]]
            if math.inf not in values:
                return values
        except ValueError:
            pass  # the slow path below names the cell
    named = zip(header[1:], cells[1:], strict=True)
    return [number(f"{path}:{line}:{name}", cell.strip(), form, remedy) for name, cell in named]


def number(where: str, cell: str, form: Format = PLAIN, remedy: str = OR_BLANK) -> float:
    """Value of a cell, NaN where it is blank; a DataError, which ends in `remedy`, where it is no number."""
    if not cell:
        return math.nan
    plain = _plain(cell, form)
    if form == PLAIN and _THOUSANDS.fullmatch(cell):
        raise FormatError(f"{where}: {cell!r} has a thousands separator; write {cell.replace(',', '')}")
    if plain is None or not (plain.isascii() and NUMBER.fullmatch(plain)):
        raise FormatError(f"{where}: {cell!r} is not a number; {remedy}")
    value = float(plain)
    if math.isinf(value):
        raise DataError(f"{where}: {cell!r} is beyond the range of numbers; correct it")
    return value


def _plain(cell: str, form: Format) -> str | None:
    """A number as float() reads it; None where its marks are not those of `form`."""
    whole, point, rest = cell.partition("," if form.decimal == "comma" else ".")
    mark = _MARKS[form.thousands]
    if mark and mark in whole:
        head, *groups = whole.split(mark)
        if not head.lstrip("+-") or len(head.lstrip("+-")) > 3 or any(len(group) != 3 for group in groups):
            return None
        whole = "".join([head, *groups])
    if form.decimal == "comma" and "." in whole + rest:
        return None
    return f"{whole}.{rest}" if point else whole


@dataclass(frozen=True)
class CsvTable:
    """Dates and numbers of a file.

    Attributes
    ----------
    path : the file, as the user named it.
    header : 1 + C names of the columns, the dates' first.
    lines : [T] line of the file (from 1) that each row stands on, or [T, C] of each cell, 0 where there is none.
    dates : [T] datetime64[D], strictly increasing, none in the future.
    values : [T, C] float64, NaN where the cell is blank.
    """

    path: Path
    header: tuple[str, ...]
    lines: NDArray[np.int64]
    dates: NDArray[np.datetime64]
    values: NDArray[np.float64]

    def error(self, row: int, column: int, problem: str) -> DataError:
        """`file:row:column: problem` for row 0 ... T-1 and value column 0 ... C-1."""
        line = self.lines[row] if self.lines.ndim == 1 else self.lines[row, column]
        return DataError(f"{self.path}:{line or self.dates[row]}:{self.header[column + 1]}: {problem}")

    def refuse(self, wrong: NDArray[np.bool_], name: str, problem: str) -> None:
        """Raise the error of the first cell that is `wrong` [T, C]: `name`, its value and `problem`."""
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise self.error(row, column, f"{name} {self.values[row, column]:g} {problem}")

    def of(self, columns: list[int], names: tuple[str, ...]) -> "CsvTable":
        """Some of the columns, under other names."""
        lines = self.lines if self.lines.ndim == 1 else self.lines[:, columns]
        return CsvTable(self.path, (self.header[0], *names), lines, self.dates, self.values[:, columns])


def read_table(path: Path, raw: bytes | None = None, missing: str = "", remedy: str = OR_BLANK) -> CsvTable:
    """Read a CSV with a header, dates (YYYY-MM-DD) in its first column and numbers in the others.

    A DataError, `file:row:column: what is wrong; what to do`, names the first problem in the file.

    Parameters
    ----------
    raw : content of the file, where it was read before.
    missing : a cell that counts as blank.
    remedy : what to do about a cell that is no number.
    """
    records = text_rows(path, raw)
    _, first = next(records, (1, [""]))
    rows = ((line, ["" if cell.strip() == missing else cell for cell in cells]) for line, cells in records)
    return table_of(path, read_header(path, first), rows if missing else records, remedy=remedy)


def table_of(
    path: Path, header: tuple[str, ...], records: Records, form: Format = PLAIN, remedy: str = OR_BLANK
) -> CsvTable:
    """The table of `records` below a header, whose first column holds the dates; raises as `read_table`."""
    days_of = DayReader(path, header[0], form.date)
    lines: list[int] = []
    days: list[date] = []
    seen: dict[date, int] = {}
    rows: list[list[float]] = []
    for line, cells in records:
        check_width(path, line, header, cells)
        day = days_of(line, cells[0])
        if day in seen and days_of.timed:
            raise intraday(f"{path}:{line}:{header[0]}", day)
        if day in seen:
            raise DataError(f"{path}:{line}:{header[0]}: date {day} stands on line {seen[day]} already; keep one row")
        if days and day < days[-1]:
            raise DataError(f"{path}:{line}:{header[0]}: date {day} comes after {days[-1]}; sort the rows by date")
        seen[day] = line
        lines.append(line)
        days.append(day)
        rows.append(numbers(path, line, header, cells, form, remedy))
    if not rows:
        raise DataError(f"{path}:2:{header[0]}: no rows below the header; add a row of values per trading day")
    return CsvTable(path, header, np.array(lines), np.array(days, dtype="datetime64[D]"), np.array(rows))
