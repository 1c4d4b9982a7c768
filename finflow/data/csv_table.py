"""A strict reader for tables of dates and numbers: every cell is a number, blank, or an error that names it."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.data.csv_cells import OR_BLANK, DayReader, intraday, numbers
from finflow.data.csv_rows import Records, check_width, read_header, text_rows
from finflow.errors import DataError
from finflow.schema.env import PLAIN, Format


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

    def of(self, columns: list[int], names: tuple[str, ...]) -> "CsvTable":
        """Some of the columns, under other names."""
        lines = self.lines if self.lines.ndim == 1 else self.lines[:, columns]
        return CsvTable(self.path, (self.header[0], *names), lines, self.dates, self.values[:, columns])


def read_table(path: Path, raw: bytes | None = None, missing: str = "", remedy: str = OR_BLANK) -> CsvTable:
    """Read a CSV with a header, dates (YYYY-MM-DD) in its first column and numbers in the others.

    Parameters
    ----------
    raw : content of the file, where it was read before.
    missing : a cell that counts as blank.
    remedy : what to do about a cell that is no number.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do` for the first problem in the file.
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
