"""Returns that a portfolio is measured against or earns when idle: 1/N, a user's own benchmark, cash."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import BUSINESS, Calendar
from finflow.data.csv_rows import read_as, read_bytes
from finflow.data.csv_source import check_range
from finflow.data.csv_table import CsvTable, read_table
from finflow.errors import ConfigError, DataError
from finflow.schema.env import Env

EQUAL_WEIGHT = "equal_weight"
FRED_MISSING = "."
"""What FRED writes on holidays; blanks are missing too."""
HIGH_YIELD = 0.08
BENCHMARK, CASH_YIELD = "env.benchmark", "env.cash_yield"


def equal_weight(
    returns: NDArray[np.float64], held: NDArray[np.bool_], idle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Gross return of 1/N over the names held at the previous close, [T]; row 0 is 0.

    Parameters
    ----------
    returns : [T, d] simple returns from t-1 to t.
    held : [T, d] names that make up 1/N at the close of t, chosen by prices up to t.
    idle : [T] return of a day without any name.
    """
    count = held[:-1].sum(axis=1)
    total = np.where(held[:-1], returns[1:], 0.0).sum(axis=1)
    series = np.zeros(len(returns))
    series[1:] = np.where(count > 0, total / np.maximum(count, 1), idle[1:])
    return series


def own_benchmark(path: Path, dates: NDArray[np.datetime64], raw: bytes | None = None) -> NDArray[np.float64]:
    """Returns [T] on the market's `dates` of a CSV `date,level`, read before where `raw` is given; row 0 is 0.

    Raises
    ------
    DataError
        If a level is missing, not positive or absurd, or a date of the market is not in the file; it names the
        key `env.benchmark`.
    """
    with read_as(BENCHMARK):
        return _benchmark_returns(_series(path, "level", raw), dates)


def _benchmark_returns(table: CsvTable, dates: NDArray[np.datetime64]) -> NDArray[np.float64]:
    levels = table.values[:, 0]
    wrong = np.flatnonzero(levels <= 0)
    if len(wrong):
        raise table.error(int(wrong[0]), 0, f"level {levels[wrong[0]]:g} is not positive; correct it")
    check_range(table, "level")
    at = np.minimum(np.searchsorted(table.dates, dates), len(table.dates) - 1)
    missing = np.flatnonzero(table.dates[at] != dates)
    if len(missing):
        line = table.lines[at[missing[0]]]
        raise DataError(
            f"{table.path}:{line}:{table.header[1]}: no level for {dates[missing[0]]}, a day of the market "
            f"({len(missing)} missing); add a row per trading day"
        )
    series = np.zeros(len(dates))
    series[1:] = levels[at[1:]] / levels[at[:-1]] - 1
    return series


def cash_returns(
    cash_yield: float | str,
    dates: NDArray[np.datetime64],
    raw: bytes | None = None,
    calendar: Calendar = BUSINESS,
) -> NDArray[np.float64]:
    """Yield of cash from t-1 to t, [T]; row 0 is 0.

    A yearly rate y earns (1 + y)^(1/252) - 1 a row where 252 rows are a year. From a CSV `date,rate` the row t-1 to
    t earns the rate last published on or before t-1: carrying a published rate forward looks at the past alone.

    Raises
    ------
    ConfigError, DataError
        If the rate is no yearly fraction, or none was published by the first day; it names the key
        `env.cash_yield`.
    """
    if not isinstance(cash_yield, str):
        if not -1 < cash_yield < 1:
            raise ConfigError(f"env.cash_yield={cash_yield:g}: not a yearly fraction; write 5 % as 0.05")
        series = np.zeros(len(dates))
        series[1:] = (1 + cash_yield) ** (1 / calendar.year) - 1
        return series
    with read_as(CASH_YIELD):
        return _published_returns(_known(_series(Path(cash_yield), "rate", raw, FRED_MISSING)), dates, calendar.year)


def cash_warnings(cash: NDArray[np.float64], calendar: Calendar) -> tuple[str, ...]:
    """A warning where cash earns more than `HIGH_YIELD` a year on average, as when percents are read as fractions."""
    if len(cash) < 2 or (cash <= -1).any():
        return ()
    yearly = float(np.expm1(np.log1p(cash[1:]).mean() * calendar.year))
    if yearly <= HIGH_YIELD:
        return ()
    return (
        f"env.cash_yield: cash earns {100 * yearly:.1f} % a year on average; where the rates are percents, as FRED's "
        "are, divide them by 100",
    )


def _known(table: CsvTable) -> CsvTable:
    """The rows with a rate."""
    known = np.isfinite(table.values[:, 0])
    if not known.any():
        raise table.error(0, 0, "no rate in the whole file; supply them")
    return replace(table, lines=table.lines[known], dates=table.dates[known], values=table.values[known])


def _published_returns(table: CsvTable, dates: NDArray[np.datetime64], year: int) -> NDArray[np.float64]:
    rates = table.values[:, 0]
    wrong = np.flatnonzero((rates <= -1) | (rates >= 1))
    if len(wrong):
        raise table.error(int(wrong[0]), 0, f"rate {rates[wrong[0]]:g} is not a yearly fraction; write 5 % as 0.05")
    at = np.searchsorted(table.dates, dates, side="right") - 1
    if at[0] < 0:
        raise table.error(0, 0, f"no rate on or before {dates[0]}, the market's first day; add an earlier row")
    series = np.zeros(len(dates))
    series[1:] = (1 + rates[at[:-1]]) ** (1 / year) - 1
    return series


def series_files(env: Env) -> dict[str, Path]:
    """Files beside the prices that shape a market, by key; their content is part of its fingerprint."""
    benchmark = env.benchmark if env.benchmark != EQUAL_WEIGHT else None
    named = {BENCHMARK: benchmark, CASH_YIELD: env.cash_yield}
    return {key: Path(name) for key, name in named.items() if isinstance(name, str)}


def read_series(env: Env) -> Mapping[str, bytes]:
    """Contents of `series_files`.

    Raises
    ------
    DataError
        If one cannot be read; it names the key.
    """
    found: dict[str, bytes] = {}
    for key, path in series_files(env).items():
        with read_as(key):
            found[key] = read_bytes(path)
    return found


def _series(path: Path, name: str, raw: bytes | None, missing: str = "") -> CsvTable:
    """A table of dates and one value each, none of them blank, or where `missing` is given some."""
    table = read_table(path, raw=raw, missing=missing)
    if table.values.shape[1] != 1:
        raise DataError(f"{path}:1:{table.header[2]}: more than two columns; keep the date and the {name}")
    blank = np.flatnonzero(np.isnan(table.values[:, 0]))
    if len(blank) and not missing:
        raise table.error(int(blank[0]), 0, f"a blank {name}; supply it or delete the row")
    return table
