"""Remedies that refusals print are followed here, as they are printed, until the file is read."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import load_prices
from finflow.errors import ConfigError, FinFlowError

OVERRIDE = re.compile(r"env\.[\w.]+=[^\s,;]+")
"""What is to be typed, as far as it is printed."""


def walk(rows: int = 700, frequency: str = "B") -> pd.DataFrame:
    days = pd.date_range("2012-01-02", periods=rows, freq=frequency, name="Date")
    steps = np.random.default_rng(0).normal(0, 0.01, (rows, 3))
    return pd.DataFrame(5000 * np.exp(steps.cumsum(axis=0)), days, ["AA", "BB", "CC"])


def german(path: Path) -> None:
    walk().to_csv(path, sep=";", decimal=",", date_format="%d.%m.%Y")


def swiss(path: Path) -> None:
    walk().map(lambda x: f"{x:,.2f}".replace(",", "'")).to_csv(path, sep=";", date_format="%d.%m.%Y")


def american(path: Path) -> None:
    walk().map(lambda x: f"{x:,.2f}").to_csv(path, date_format="%m/%d/%Y")


def piped(path: Path) -> None:
    walk().to_csv(path, sep="|", date_format="%Y%m%d")


def tabbed(path: Path) -> None:
    walk().to_csv(path, sep="\t", decimal=",", date_format="%d-%m-%Y")


def blank_day(path: Path) -> None:
    frame = walk(800)
    frame.iloc[300:305, 1] = np.nan
    frame.to_csv(path)


def mixed(path: Path) -> None:
    frame = walk(1100, "D")
    frame.loc[frame.index.dayofweek >= 5, ["AA", "BB"]] = np.nan
    frame.to_csv(path)


def zero(path: Path) -> None:
    frame = walk()
    frame.iloc[300, 1] = 0.0
    frame.to_csv(path)


WRITERS: list[Callable[[Path], None]] = [german, swiss, american, piped, tabbed, blank_day, mixed]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_printed_overrides_read_the_file(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write(path)
    words = ["env=csv", f"env.path='{path}'"]
    with pytest.raises(FinFlowError) as caught:
        load_prices(load("pretrain", words).env)
    advised = OVERRIDE.findall(str(caught.value))
    assert advised, str(caught.value)
    assert len(load_prices(load("pretrain", [*words, *advised]).env).dates) >= 673


def test_a_cell_left_blank_is_read_with_what_the_refusal_says(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    zero(path)
    words = ["env=csv", f"env.path='{path}'"]
    with pytest.raises(FinFlowError, match="leave the cell blank") as caught:
        load_prices(load("pretrain", words).env)
    frame = pd.read_csv(path, index_col=0)
    frame.replace(0.0, np.nan).to_csv(path)
    assert len(load_prices(load("pretrain", [*words, *OVERRIDE.findall(str(caught.value))]).env).dates) == 699


@pytest.mark.parametrize("tickers", ["[^GSPC,SPY]", "[EURUSD=X,SPY]", "[M&M.NS, RELIANCE.NS]"])
def test_tickers_that_have_to_be_quoted_are_printed_quoted(tickers: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("pretrain", ["env=dow30", f"env.tickers={tickers}"])
    advised = shlex.split(str(caught.value).partition("; write ")[2])
    found = load("pretrain", ["env=dow30", *advised]).env.tickers
    assert found == [part.strip() for part in tickers[1:-1].split(",")]


def test_fields_of_one_ticker_become_a_folder_as_told(tmp_path: Path) -> None:
    folder = tmp_path / "each"
    folder.mkdir()
    for name in walk():
        ohlc = pd.DataFrame({field: walk()[name] for field in ("Open", "High", "Low", "Close")})
        ohlc.to_csv(folder / f"{name}.csv")
    with pytest.raises(FinFlowError, match="a folder with a file like this of each"):
        load_prices(load("pretrain", ["env=csv", f"env.path='{folder / 'AA.csv'}'"]).env)
    prices = load_prices(load("pretrain", ["env=csv", f"env.path='{folder}'"]).env)
    np.testing.assert_allclose(prices.close, walk().to_numpy(), rtol=1e-12)
