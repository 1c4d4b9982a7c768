"""The prices that come with skfolio are those of its own function, read without its seconds of imports."""

import subprocess
import sys

import numpy as np
from skfolio.datasets import load_sp500_dataset

from finflow.config.compose import load
from finflow.data.build import load_sp500


def test_bundled_prices_are_those_of_skfolio() -> None:
    prices, table = load_sp500(load("pretrain", []).env), load_sp500_dataset()
    assert prices.tickers == tuple(table.columns)
    assert (prices.dates == table.index.to_numpy().astype("datetime64[D]")).all()
    assert np.array_equal(prices.close, table.to_numpy())


def test_reading_them_does_not_import_skfolio() -> None:
    program = (
        "import sys; from finflow.config.compose import load; from finflow.data.build import load_sp500\n"
        "load_sp500(load('pretrain', []).env); print({'skfolio', 'sklearn', 'plotly'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()"]
