"""Cells of a user's table: a date, a number, a blank, or an error that names the cell."""

import math
import re
from datetime import date, datetime
from pathlib import Path

from finflow.data.csv_rows import DAY, NUMBER, FormatError
from finflow.errors import DataError
from finflow.schema.env import PLAIN, Format

_DAY_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d")
_MIDNIGHT = re.compile(r"(\d{4}-\d{2}-\d{2})[T ]00:00(:00(\.0+)?)?(Z|[+-]\d{2}:?\d{2})?")
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
    """Dates of one column, written in one way; a time of day passes where it is midnight in every row.

    Attributes
    ----------
    timed : whether a time of day stands in each cell; None before the first.
    """

    def __init__(self, path: Path, column: str, layout: str) -> None:
        self.timed: bool | None = None
        self._path, self._column, self._layout = path, column, layout
        self._last = date.today()
        self._read: dict[str, date] = {}
        self._offsets = set[str]()

    def __call__(self, line: int, cell: str) -> date:
        """The day of a cell on `line`.

        Raises
        ------
        DataError
            If it is none, has a time of day, or is in the future.
        """
        text = cell.strip()
        if text in self._read:
            return self._read[text]
        where = f"{self._path}:{line}:{self._column}"
        day = self._parsed(where, text)
        if day > self._last:
            raise DataError(f"{where}: date {day} is in the future; remove the row or correct the date")
        self._read[text] = day
        return day

    def _parsed(self, where: str, text: str) -> date:
        if _DAY_AND_TIME.match(text):
            return self._midnight(where, text)
        try:
            if self.timed:
                raise ValueError
            self.timed = False
            if self._layout != PLAIN.date:
                return datetime.strptime(text, _DATES[self._layout]).date()
            if not DAY.fullmatch(text):
                raise ValueError
            return date.fromisoformat(text)
        except ValueError:
            raise FormatError(f"{where}: {text!r} is not a date; write it as {self._layout}") from None

    def _midnight(self, where: str, text: str) -> date:
        found = _MIDNIGHT.fullmatch(text)
        if found is None and self.timed is None:
            raise intraday(where, text)
        if found is None or self.timed is False:
            raise DataError(f"{where}: {text!r} has a time of day or a time zone; write the date alone, as YYYY-MM-DD")
        self.timed = True
        self._offsets.add(found[4] or "")
        if len(self._offsets) > 2:  # summer and winter
            named = ", ".join(sorted(self._offsets)[:3])
            raise DataError(f"{where}: {text!r} has another time zone ({named}); write the date alone, as YYYY-MM-DD")
        return date.fromisoformat(found[1])


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
    """Value of a cell, NaN where it is blank; `remedy` is said of one that is no number.

    Raises
    ------
    DataError
        If it is no number.
    """
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
