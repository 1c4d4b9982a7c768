"""Where prices come from: one function per source, found by the name that `env.source` gives."""

from collections.abc import Callable

import numpy as np

from finflow.data.csv_source import load_csv
from finflow.data.prices import Prices
from finflow.data.synthetic import load_synthetic
from finflow.errors import ConfigError
from finflow.schema.env import Env


def load_sp500(env: Env) -> Prices:
    """Adjusted closes of 20 stocks of the S&P 500, 1990-01-02 to 2022-12-28, bundled with skfolio.

    The names are survivors chosen with hindsight, and prices before 1995 are rounded to $.001.
    """
    from skfolio.datasets import load_sp500_dataset  # a second of imports that other sources do not need

    table = load_sp500_dataset()
    dates = table.index.to_numpy().astype("datetime64[D]")
    return Prices(dates, tuple(str(c) for c in table.columns), np.ascontiguousarray(table.to_numpy(np.float64)))


SOURCES: dict[str, Callable[[Env], Prices]] = {
    "sp500": load_sp500,
    "csv": load_csv,
    "synthetic": load_synthetic,
}


def load_prices(env: Env) -> Prices:
    """Read the prices that `env` names.

    Raises
    ------
    ConfigError
        If there is no such source, or a key that the source needs is missing.
    DataError
        If the prices cannot be believed.
    """
    if env.source not in SOURCES:
        raise ConfigError(f"env.source={env.source!r}: no such source; choose one of {', '.join(SOURCES)}")
    return SOURCES[env.source](env)
