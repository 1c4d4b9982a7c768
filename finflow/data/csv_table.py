"""A CSV of dates and numbers, read without a single guess: every cell is a number, blank, or refused by name."""

import contextlib
import csv
import io
import math
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.errors import DataError

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PLAIN_ROW = re.compile(r"[0-9.,+-]*")
"""No exponent, name, underscore or digit of another script: what float() makes of such cells is what they say."""
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


@dataclass(frozen=True)
class CsvTable:
    """Dates and numbers of a CSV.

    Attributes
    ----------
    path : the file, as the user named it.
    header : 1 + C names of the columns, the dates' first.
    lines : [T] line of the file (from 1) that each row stands on.
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
        return DataError(f"{self.path}:{self.lines[row]}:{self.header[column + 1]}: {problem}")


@contextlib.contextmanager
def read_as(key: str) -> Generator[None]:
    """Put `key=` before what is wrong with its file: a user may never have meant to name one."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}={error}") from error


def read_table(path: Path, today: date | None = None, raw: bytes | None = None) -> CsvTable:
    """Read a CSV with a header, dates (YYYY-MM-DD) in its first column and numbers in the others.

    Parameters
    ----------
    today : dates after it are refused; None for the day of the call.
    raw : content of the file, where it was read before.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do` for the first problem in the file.
    """
    records = text_rows(path, raw)
    _, first = next(records, (1, [""]))
    header = _header(path, first)
    last_day = today or date.today()
    lines: list[int] = []
    days: list[date] = []
    seen: dict[date, int] = {}
    rows: list[list[float]] = []
    for line, cells in records:
        if len(cells) != len(header):
            where = header[len(cells)] if len(cells) < len(header) else str(len(header) + 1)
            raise DataError(
                f"{path}:{line}:{where}: {len(cells)} cells where the header has {len(header)}; "
                "give every row a cell per column, blank where there is no value, without thousands separators"
            )
        day = _day(f"{path}:{line}:{header[0]}", cells[0], last_day)
        if day in seen:
            raise DataError(f"{path}:{line}:{header[0]}: date {day} stands on line {seen[day]} already; keep one row")
        if days and day < days[-1]:
            raise DataError(f"{path}:{line}:{header[0]}: date {day} comes after {days[-1]}; sort the rows by date")
        seen[day] = line
        lines.append(line)
        days.append(day)
        rows.append(_numbers(path, line, header, cells))
    if not rows:
        raise DataError(f"{path}:2:{header[0]}: no rows below the header; add a row of values per trading day")
    return CsvTable(path, header, np.array(lines), np.array(days, dtype="datetime64[D]"), np.array(rows))


def read_bytes(path: Path) -> bytes:
    """Content of a user's file.

    Raises
    ------
    DataError
        If it is missing, a directory, or not to be read.
    """
    if path.is_dir():
        raise DataError(f"{path}: a directory, not a file; name a CSV file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _decoded(path: Path, raw: bytes) -> str:
    if not raw.strip():
        raise DataError(f"{path}:1:1: the file is empty; write a header and rows below it")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}:1:1: UTF-16, not UTF-8; save the file as UTF-8")
    if b"\0" in raw or raw.startswith((b"PK\x03\x04", b"\x1f\x8b", b"PAR1")):
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


def text_rows(path: Path, raw: bytes | None = None) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row of a CSV, its header too; blank lines are allowed at the end of the file only.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`, when the row is reached.
    """
    text = _decoded(path, read_bytes(path) if raw is None else raw)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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


def _header(path: Path, cells: list[str]) -> tuple[str, ...]:
    names = [c.strip() for c in cells]
    if len(names) == 1:
        separator = next((s for s in (";", "\t", "|") if s in names[0]), None)
        if separator:
            name = "tab" if separator == "\t" else separator
            raise DataError(f"{path}:1:1: columns are separated by {name!r}; separate them by commas")
        raise DataError(f"{path}:1:2: only one column; put dates in the first and values in the others")
    if _DAY.fullmatch(names[0]) or (names[0] and all(_NUMBER.fullmatch(n) for n in names)):
        raise DataError(f"{path}:1:1: no header, the first row holds {names[0]!r}; add a row of column names")
    for number, name in enumerate(names[1:], start=2):
        if not name:
            raise DataError(f"{path}:1:{number}: a column without a name; name it or remove it")
        if name in names[1 : number - 1]:
            raise DataError(f"{path}:1:{name}: column {name!r} stands twice; keep one")
    return (names[0] or "1", *names[1:])


def _day(where: str, cell: str, last_day: date) -> date:
    text = cell.strip()
    if _DAY_AND_TIME.match(text):
        raise DataError(f"{where}: {text!r} has a time of day or a time zone; write the date alone, as YYYY-MM-DD")
    try:
        if not _DAY.fullmatch(text):
            raise ValueError
        day = date.fromisoformat(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is not a date; write it as YYYY-MM-DD") from None
    if day > last_day:
        raise DataError(f"{where}: date {day} is in the future; remove the row or correct the date")
    return day


def _numbers(path: Path, line: int, header: tuple[str, ...], cells: list[str]) -> list[float]:
    """Values of a row; quick for rows in which nothing can be misread, cell by cell for others."""
    if _PLAIN_ROW.fullmatch(",".join(cells[1:])):
        try:
            values = [float(c) if c else math.nan for c in cells[1:]]
            if math.inf not in values:
                return values
        except ValueError:
            pass  # the slow path below names the cell
    return [_number(f"{path}:{line}:{name}", c.strip()) for name, c in zip(header[1:], cells[1:], strict=True)]


def _number(where: str, cell: str) -> float:
    if not cell:
        return math.nan
    if _THOUSANDS.fullmatch(cell):
        raise DataError(f"{where}: {cell!r} has a thousands separator; write {cell.replace(',', '')}")
    if not (cell.isascii() and _NUMBER.fullmatch(cell)):
        raise DataError(f"{where}: {cell!r} is not a number; write a number, or leave the cell blank")
    value = float(cell)
    if math.isinf(value):
        raise DataError(f"{where}: {cell!r} is beyond the range of numbers; correct it")
    return value
