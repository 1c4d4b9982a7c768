"""Whatever layout the same prices come in, the same market is read; nothing of a layout is guessed."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finflow.config.compose import load
from finflow.data.build import load_prices, market_of
from finflow.data.csv_source import Sheet, read_sheet
from finflow.schema.sections import PLAIN, Format

NAMES = ["AAA", "BBB", "CCC"]


def frames(rows: int = 700, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Closes and volumes."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2015-01-05", periods=rows, freq="B", name="Date")
    close = pd.DataFrame(50 * np.exp(rng.normal(0, 0.01, (rows, 3)).cumsum(axis=0)), days, NAMES)
    return close, pd.DataFrame(rng.integers(1, 10**6, (rows, 3)).astype(float), days, NAMES)


def yahoo_like(close: pd.DataFrame, volume: pd.DataFrame) -> pd.DataFrame:
    fields = {"Close": close, "High": close * 1.01, "Low": close * 0.99, "Open": close * 1.001, "Volume": volume}
    return pd.concat(fields, axis=1, names=["Price", "Ticker"])


def long_form(close: pd.DataFrame, volume: pd.DataFrame) -> pd.DataFrame:
    table = yahoo_like(close, volume).stack("Ticker", future_stack=True).reset_index()
    return table.rename(columns=str.lower).dropna(subset=["close"])


def write_folder(folder: Path, close: pd.DataFrame, volume: pd.DataFrame) -> Path:
    folder.mkdir()
    for name in close:
        table = pd.DataFrame({"Close": close[name], "Volume": volume[name]})
        table.dropna(subset=["Close"]).to_csv(folder / f"{name}.csv")
    return folder


def write(layout: str, folder: Path, close: pd.DataFrame, volume: pd.DataFrame, rng: np.random.Generator) -> list[str]:
    """Write one layout; returns the overrides that read it."""
    path = folder / "prices.csv"
    both, shuffled = yahoo_like(close, volume), long_form(close, volume)
    shuffled = shuffled.iloc[rng.permutation(len(shuffled))]
    if layout == "wide":
        close.to_csv(path)
        volume.to_csv(folder / "volume.csv")
        return [f"env.path='{path}'", f"env.volume='{folder / 'volume.csv'}'"]
    if layout == "gz":
        path = folder / "prices.csv.gz"
        both.to_csv(path)
    elif layout == "yahoo":
        both.iloc[:, rng.permutation(both.shape[1])].to_csv(path)
    elif layout == "yahoo by ticker":
        both.swaplevel(axis=1).sort_index(axis=1).to_csv(path)
    elif layout == "yahoo, unnamed":
        both.rename_axis(index=None, columns=[None, None]).to_csv(path)
    elif layout == "yahoo, midnight in New York":
        both.tz_localize("America/New_York").to_csv(path)
    elif layout == "long":
        shuffled.to_csv(path, index=False)
    elif layout == "FinRL":
        shuffled.rename(columns={"ticker": "tic"}).assign(day=1, macd=0.5).to_csv(path)
    elif layout == "folder":
        path = write_folder(folder / "each", close, volume)
    elif layout == "parquet":
        path = folder / "prices.parquet"
        both.to_parquet(path)
    elif layout == "long parquet":
        path = folder / "prices.parquet"
        shuffled.to_parquet(path)
    elif layout == "German":
        both_words = {"sep": ";", "decimal": ",", "date_format": "%d.%m.%Y"}
        close.to_csv(path, **both_words)
        volume.to_csv(folder / "volume.csv", **both_words)
        words = ["env.format.separator=semicolon", "env.format.decimal=comma", "env.format.date=DD.MM.YYYY"]
        return [f"env.path='{path}'", f"env.volume='{folder / 'volume.csv'}'", *words]
    return [f"env.path='{path}'"]


LAYOUTS = [
    "wide", "gz", "yahoo", "yahoo by ticker", "yahoo, unnamed", "yahoo, midnight in New York", "long", "FinRL",
    "folder", "parquet", "long parquet", "German",
]  # fmt: skip


def fingerprint(words: list[str]) -> str:
    env = load("pretrain", ["env=csv", *words, f"env.tickers=[{','.join(NAMES)}]"]).env
    return market_of(load_prices(env), env).fingerprint


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), listed=st.integers(0, 60), layout=st.sampled_from(LAYOUTS[1:]))
def test_the_same_prices_are_the_same_market_in_any_layout(seed: int, listed: int, layout: str) -> None:
    rng = np.random.default_rng(seed)
    close, volume = frames(seed=seed % 1000)
    close.iloc[:listed, 2] = np.nan  # lists later
    volume.iloc[:listed, 2] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        wide = fingerprint(write("wide", Path(folder), close, volume, rng))
    with tempfile.TemporaryDirectory() as folder:
        assert fingerprint(write(layout, Path(folder), close, volume, rng)) == wide


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_to_the_last_bit(layout: str, tmp_path: Path) -> None:
    close, volume = frames()
    words = write(layout, tmp_path, close, volume, np.random.default_rng(0))
    env = load("pretrain", ["env=csv", *words, f"env.tickers=[{','.join(NAMES)}]"]).env
    prices = load_prices(env)
    np.testing.assert_array_equal(prices.close, close.to_numpy())
    assert prices.volume is not None
    np.testing.assert_array_equal(prices.volume, volume.to_numpy())
    assert prices.layout


def read(path: Path, form: Format = PLAIN) -> Sheet:
    return read_sheet(path, form)


def test_adjusted_closes_are_taken_where_there_is_a_choice(tmp_path: Path) -> None:
    close, volume = frames(30)
    fields = {"Adj Close": close / 2, "Close": close, "Volume": volume}
    pd.concat(fields, axis=1).to_csv(tmp_path / "two.csv")
    np.testing.assert_array_equal(read(tmp_path / "two.csv").close.values, close.to_numpy() / 2)
    table = long_form(close, volume).assign(adj_close=lambda t: t.close / 2)
    table.to_csv(tmp_path / "long.csv", index=False)
    np.testing.assert_array_equal(read(tmp_path / "long.csv").close.values, close.to_numpy() / 2)
    (tmp_path / "each").mkdir()
    for name in close:
        pd.DataFrame({"Close": close[name], "Adj Close": close[name] / 2}).to_csv(tmp_path / "each" / f"{name}.csv")
    np.testing.assert_array_equal(read(tmp_path / "each").close.values, close.to_numpy() / 2)


def test_one_tickers_files_of_yahoo_make_a_folder(tmp_path: Path) -> None:
    close, volume = frames(30)
    both = yahoo_like(close, volume)
    for name in close:
        both.xs(name, axis=1, level="Ticker", drop_level=False).to_csv(tmp_path / f"{name}.csv")
    found = read(tmp_path)
    np.testing.assert_array_equal(found.close.values, close.to_numpy())
    assert found.close.header[1:] == tuple(NAMES)


def test_thousands_are_read_when_told(tmp_path: Path) -> None:
    rows = "Date;AA;BB\n02.01.2020;1.234,5;2\n03.01.2020;12.345.678,25;3\n"
    (tmp_path / "p.csv").write_text(rows)
    form = Format(separator="semicolon", decimal="comma", thousands="point", date="DD.MM.YYYY")
    assert read(tmp_path / "p.csv", form).close.values.tolist() == [[1234.5, 2.0], [12345678.25, 3.0]]
