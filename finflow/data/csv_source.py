"""A user's own prices: a wide CSV, dates in the first column and one column per ticker."""

from datetime import date
from pathlib import Path

import numpy as np

from finflow.data.csv_table import CsvTable, read_table
from finflow.data.folds import minimum_rows
from finflow.data.market import CASH
from finflow.data.prices import Prices
from finflow.errors import DataError
from finflow.schema.env import Env

LOWEST, HIGHEST = 1e-6, 1e9
"""Prices outside are a slip or a broken export; ratios of any two inside stay far from the limits of float64."""


def load_csv(env: Env) -> Prices:
    """Prices of the CSV at `env.path`.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`.
    """
    assert env.path is not None, "the schema asks for it"
    return read_prices(Path(env.path), minimum_rows(env))


def read_prices(path: Path, min_rows: int, today: date | None = None) -> Prices:
    """Read and check a wide CSV of prices; nothing in it is repaired or filled.

    Blanks before a name's first price (not listed yet) and after its last (delisted) are fine, one between
    prices is not.

    Raises
    ------
    DataError
        One line for the first problem.
    """
    table = read_table(path, today)
    _check_tickers(table)
    _check_levels(table)
    _check_blanks(table)
    if len(table.dates) < min_rows:
        raise DataError(
            f"{path}:{table.lines[-1]}:{table.header[0]}: {len(table.dates)} rows of prices, features and folds need "
            f"at least {min_rows}; add history or lower env.min_history"
        )
    return Prices(table.dates, table.header[1:], table.values)


def _check_tickers(table: CsvTable) -> None:
    tickers = list(table.header[1:])
    for ticker in tickers:
        if ticker.upper() == CASH:
            raise DataError(
                f"{table.path}:1:{ticker}: a ticker called {ticker} clashes with the portfolio's own cash; rename it"
            )
    if len(tickers) < 2:
        raise DataError(
            f"{table.path}:1:{tickers[0]}: only one ticker; a portfolio needs at least two columns of prices"
        )


def _check_levels(table: CsvTable) -> None:
    wrong = np.argwhere(table.values <= 0)
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise table.error(
            row, column, f"price {table.values[row, column]:g} is not positive; correct it, or leave the cell blank"
        )
    check_range(table, "price")


def check_range(table: CsvTable, name: str) -> None:
    """Refuse a value that no market shows; blanks pass.

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
    listed = np.maximum.accumulate(present, axis=0)
    not_ended = np.maximum.accumulate(present[::-1], axis=0)[::-1]
    gaps = np.argwhere(~present & listed & not_ended)
    if len(gaps):
        row, column = (int(i) for i in gaps[0])
        raise table.error(
            row, column, "a blank between prices; supply the price, or remove the column (nothing is ever filled in)"
        )
