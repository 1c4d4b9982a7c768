"""Prices from a user's file or folder in any layout of `layouts.py`: checked, never filled."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import calendar_of
from finflow.data.csv_rows import SEPARATED, FormatError, read_as
from finflow.data.csv_table import CsvTable
from finflow.data.folds import minimum_rows
from finflow.data.layouts import Sheet, read_sheet
from finflow.data.market import CASH
from finflow.data.prices import Prices
from finflow.errors import ConfigError, DataError
from finflow.schema.env import LEAST_HISTORY, Env, Format

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
