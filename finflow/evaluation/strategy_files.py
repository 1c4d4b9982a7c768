"""Strategies from outside as files: weights that the ledger books, or returns that are taken as given."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.data.csv_table import CsvTable, read_table
from finflow.data.market import CASH, Market, Window
from finflow.errors import DataError
from finflow.evaluation.backtest import POLICY, Rows, Task
from finflow.evaluation.result import Floats, Track
from finflow.evaluation.strategies import ROUNDING, Outsider, long_only

_SHOWN = 3
_LARGEST_RETURN = 10.0


def read_weights(path: Path, task: Task) -> tuple[Outsider, bool]:
    """A file of weights as a policy, and whether it decides on all train rows too.

    The row of a date is decided at its close and earns from there on. Rows stand on decision days (`env.rebalance`),
    the first of the test window among them; a row without any weight holds. A name without a column has no weight; a
    column `CASH` may be left out, and what the others leave is then cash.

    Raises
    ------
    DataError
        In one line, if a decision day of the test window has no row, a row stands on another day, a name is unknown,
        or weights are short, borrowed, or leave something over.
    """
    table, market, fold = (
        read_table(path, remedy="write a number, or leave the whole row blank to hold"),
        task.market,
        task.fold,
    )
    places = _columns(table, market)
    needed = _decision_rows(market, fold.test)
    _refuse_missing(
        table, market, needed, "decision day", f"add them, or choose env.rebalance (now {market.rebalance})"
    )
    _refuse_others(table, market, needed, f"no decision day of env.rebalance={market.rebalance}")
    train = _decision_rows(market, fold.train)
    first = table.values[table.dates == market.dates[train[0]]]
    scalable = bool(np.isin(market.dates[train], table.dates).all() and not np.isnan(first).any())
    targets = np.full((len(market.dates), market.n), np.nan)
    for row in np.concatenate([train, needed]) if scalable else needed:
        at = int(np.searchsorted(table.dates, market.dates[row]))
        values = table.values[at]
        if np.isnan(values).all() and row != needed[0]:
            continue
        if np.isnan(values).any():
            what = "a blank weight; give a number" if row != needed[0] else "no weight to begin with; give a number"
            raise table.error(at, int(np.argmax(np.isnan(values))), what)
        weights = np.zeros(market.n)
        weights[places] = values
        if CASH not in table.header:
            left = 1.0 - values.sum()
            weights[-1] = left if left > ROUNDING else 0.0
        targets[row] = long_only(weights, market.assets, f"{path}:{table.lines[at]}")

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        del drawdown
        wanted = targets[rows]
        return np.where(np.isnan(wanted), drifted, wanted)

    return Outsider(act), scalable


def read_returns(path: Path, task: Task) -> Track:
    """A file of returns, date and return in two columns, as the track of the test window.

    Raises
    ------
    DataError
        In one line, if it does not hold each day of the window and no other between them, or a return is blank or
        below -1 or above 10.
    """
    table, market, window = read_table(path, remedy="write 1 % as 0.01"), task.market, task.fold.test
    if len(table.header) != 2:
        raise DataError(f"{path}:1:{table.header[2]}: a second column of returns; keep date and return alone")
    rows = np.arange(window.start, window.stop)
    _refuse_missing(table, market, rows, "day", "add them, or choose the fold that the file covers")
    _refuse_others(table, market, rows, "no day of the prices")
    at = np.searchsorted(table.dates, market.dates[rows])
    net = table.values[at, 0]
    wrongs = (
        (np.isnan(net), "a blank return; give a number"),
        (net < -1, "a loss of more than everything"),
        (net > _LARGEST_RETURN, f"a gain of more than {100 * _LARGEST_RETURN:.0f} % on one day"),
    )
    for wrong, what in wrongs:
        if wrong.any():
            raise table.error(int(at[np.argmax(wrong)]), 0, f"{what}; write 1 % as 0.01")
    unknown, nothing = np.full(len(net), np.nan), np.zeros((len(net), 0))
    return Track(
        POLICY, market.dates[rows], nothing, nothing, unknown, unknown, net, net, closures=0, year=market.calendar.year
    )


def _decision_rows(market: Market, window: Window) -> NDArray[np.int64]:
    """Rows of a window's decisions: the first, and those that `env.rebalance` asks for."""
    rows = np.asarray(window.decisions, dtype=np.int64)
    return rows[market.decision[rows] | (rows == rows[0])]


def _columns(table: CsvTable, market: Market) -> list[int]:
    for name in table.header[1:]:
        if name not in market.assets:
            known = ", ".join(market.assets[:_SHOWN]) + ", ..."
            raise DataError(f"{table.path}:1:{name}: not a name of this market ({known}); rename or remove the column")
    return [market.assets.index(name) for name in table.header[1:]]


def _refuse_missing(table: CsvTable, market: Market, rows: NDArray[np.int64], what: str, remedy: str) -> None:
    missing = market.dates[rows][~np.isin(market.dates[rows], table.dates)]
    if len(missing):
        raise DataError(
            f"{table.path}: {len(missing)} of the {len(rows)} {what}s of the test window have no row "
            f"({_listed(missing)}); {remedy}"
        )


def _refuse_others(table: CsvTable, market: Market, rows: NDArray[np.int64], what: str) -> None:
    first, last = market.dates[rows[0]], market.dates[rows[-1]]
    inside = (table.dates >= first) & (table.dates <= last)
    others = np.flatnonzero(inside & ~np.isin(table.dates, market.dates[rows]))
    if len(others):
        at = int(others[0])
        raise DataError(
            f"{table.path}:{table.lines[at]}:{table.header[0]}: {table.dates[at]} is {what}; remove the row"
            f"{'' if len(others) == 1 else f' and {len(others) - 1} others'}"
        )


def _listed(days: Sequence[np.datetime64] | NDArray[np.datetime64]) -> str:
    return ", ".join(str(day) for day in days[:_SHOWN]) + (", ..." if len(days) > _SHOWN else "")
