"""Sources of prices: one function for each value of `env.source`."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd

from finflow.data.benchmark import read_series
from finflow.data.calendar import check_day
from finflow.data.csv_source import load_csv
from finflow.data.prices import Prices
from finflow.data.signals import add_signals
from finflow.data.snapshot import frozen
from finflow.data.synthetic import load_synthetic
from finflow.data.yahoo_source import load_yahoo
from finflow.errors import ConfigError
from finflow.plugins import chosen
from finflow.schema.env import Env


def load_sp500(env: Env) -> Prices:
    """Adjusted closes of 20 stocks of the S&P 500, 1990-01-02 to 2022-12-28, bundled with skfolio.

    The names are survivors chosen with hindsight, and prices before 1995 are rounded to $.001.
    """
    # The file is read directly: importing skfolio takes longer than importing FinFlow.
    file = distribution("skfolio").locate_file("skfolio/datasets/data/sp500_dataset.csv.gz")
    table = pd.read_csv(str(file), index_col=0)
    dates = table.index.to_numpy().astype("datetime64[D]")
    return Prices(dates, tuple(str(c) for c in table.columns), np.ascontiguousarray(table.to_numpy(np.float64)))


Source = Callable[[Env, Path | None], Prices]
"""Settings, and the folder where a download may be kept (None: nowhere) -> prices, all names and days there are."""

SOURCES: dict[str, Source] = {
    "sp500": lambda env, _: load_sp500(env),
    "yahoo": load_yahoo,
    "csv": lambda env, _: load_csv(env),
    "synthetic": lambda env, _: load_synthetic(env),
}


def load_prices(env: Env, cache_dir: Path | None = None) -> Prices:
    """Read the prices that `env` names, its tickers up to its last day, with the user's signals and files.

    Parameters
    ----------
    cache_dir : folder where downloads are kept between runs.

    Raises
    ------
    ConfigError
        If there is no such source, or a key that the source needs is missing.
    DataError
        If the prices fail a check or cannot be read.
    StorageError
        If a snapshot is damaged, or it or the cache cannot be written.
    """
    if env.snapshot is not None:
        return frozen(env, lambda: _load(env, cache_dir))
    return _load(env, cache_dir)


def _load(env: Env, cache_dir: Path | None) -> Prices:
    source: Source = chosen("env.source", env.source, SOURCES, "sources")
    prices = source(env, cache_dir)
    if env.tickers is not None:
        unknown = [ticker for ticker in env.tickers if ticker not in prices.tickers]
        if unknown:
            known = ", ".join(prices.tickers)
            raise ConfigError(f"env.tickers: {unknown[0]} is not in the prices; choose among {known}")
        prices = prices.of(env.tickers)
    if env.end is not None:
        prices = prices.until(_last_row(prices, env.end))
    if env.signals is not None:
        prices = add_signals(prices, env)
    return replace(prices, files=read_series(env))


def _last_row(prices: Prices, end: str) -> int:
    rows = int(np.searchsorted(prices.dates, np.datetime64(check_day("env.end", end), "D"), side="right"))
    if rows == 0:
        raise ConfigError(f"env.end={end}: the prices begin on {prices.dates[0]}; set it later")
    return rows
