"""What refusals say is to be done with a file is done here, to the refused file, and then it is read."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market
from finflow.data.series import read_sectors
from finflow.errors import FinFlowError

DAYS = pd.date_range("2012-01-02", periods=700, freq="B").strftime("%Y-%m-%d")
CLOSES = 50 * np.exp(np.random.default_rng(0).normal(0, 0.01, (700, 3)).cumsum(axis=0))
PRICES = ["Date,AA,BB,CC", *(",".join([day, *map(repr, row.tolist())]) for day, row in zip(DAYS, CLOSES, strict=True))]
RATES = ["date,rate", *(f"{day},0.02" for day in DAYS)]
LEVELS = ["date,level", *(f"{day},{100 + k}" for k, day in enumerate(DAYS))]
SIGNAL = ["Date,AA,BB,CC", *(f"{day},{k % 7},{k % 5},{k % 3}" for k, day in enumerate(DAYS))]
LONG = ["date,ticker,close", *(f"{day},{name},{50 + k % 9}" for k, day in enumerate(DAYS) for name in ("AA", "BB"))]

Lines = list[str]
Edit = Callable[[Lines], Lines]
Case = tuple[Edit, str, Edit]


def at(row: int, edit: Callable[[str], str | None]) -> Edit:
    """One line changed, or left out; row 0 is the header."""

    def change(lines: Lines) -> Lines:
        changed = edit(lines[row])
        return [*lines[:row], *([] if changed is None else [changed]), *lines[row + 1 or len(lines) :]]

    return change


def cell(row: int, column: int, text: str) -> Edit:
    def change(line: str) -> str:
        cells = line.split(",")
        return ",".join([*cells[:column], text, *cells[column + 1 :]])

    return at(row, change)


def every(edit: Callable[[list[str]], list[str]]) -> Edit:
    """Each line's cells changed."""
    return lambda lines: [",".join(edit(line.split(","))) for line in lines]


def delete(row: int) -> Edit:
    return at(row, lambda _: None)


def keep(first: int, last: int) -> Edit:
    return lambda lines: lines[first:last]


def column(number: int, text: str) -> Edit:
    """A column's values, below its name."""
    return lambda lines: [lines[0], *every(lambda c: [*c[:number], text, *c[number + 1 :]])(lines[1:])]


def again(row: int) -> Edit:
    return lambda lines: [*lines[: row + 1], *lines[row:]]


def without(number: int) -> Edit:
    return every(lambda cells: [*cells[:number], *cells[number + 1 :]])


def read(words: list[str]) -> int:
    return len(build_market(load("pretrain", words).env).dates)


FILES: dict[str, Case] = {
    "a day twice": (again(5), "keep one row", delete(6)),
    "days in disorder": (lambda x: [x[0], *x[:0:-1]], "sort the rows by date", lambda x: [x[0], *sorted(x[1:])]),
    "no rows": (keep(0, 1), "add a row of values per trading day", lambda x: [*x, *PRICES[1:]]),
    "nothing": (keep(0, 0), "write a header and rows below it", lambda _: PRICES),
    "a blank line": (lambda x: [*x[:9], "", *x[9:]], "delete it", delete(9)),
    "an open quote": (at(9, lambda line: f'"{line}'), "check its quotes", at(9, lambda line: line[1:])),
    "dates alone": (
        every(lambda c: c[:1]), "put dates in the first and values in the others",
        lambda x: [f"{a},{b.partition(',')[2]}" for a, b in zip(x, PRICES, strict=True)],
    ),
    "no header": (delete(0), "add a row of column names", lambda x: ["Date,AA,BB,CC", *x]),
    "a column without a name": (cell(0, 2, ""), "name it or remove it", cell(0, 2, "BB")),
    "a column without a name, removed": (cell(0, 2, ""), "name it or remove it", without(2)),
    "a name twice": (cell(0, 2, "AA"), "keep one", without(2)),
    "a cell too many": (at(9, lambda line: f"{line},1"), "give every row a cell per column", at(9, lambda x: x[:-2])),
    "a cell too few": (
        at(9, lambda line: line.rpartition(",")[0]), "give every row a cell per column, blank where",
        lambda x: delete(9)(x),
    ),
    "a day to come": (lambda x: [*x, "2999-01-04,1,1,1"], "remove the row", delete(-1)),
    "a time of day": (cell(9, 0, "2012-01-12 16:00:00"), "write the date alone", cell(9, 0, "2012-01-12")),
    "beyond all numbers": (cell(9, 1, "1e999"), "correct it", cell(9, 1, "50.0")),
    "a word": (cell(9, 1, "closed"), "write a number", cell(9, 1, "50.0")),
    "CASH": (cell(0, 1, "CASH"), "rename it", cell(0, 1, "MONEY")),
    "a column of nothing": (column(2, ""), "remove the column", without(2)),
    "a row of nothing": (at(9, lambda line: f"{line[:10]},,,"), "delete the row", delete(9)),
    "one ticker": (
        every(lambda c: c[:2]), "at least two columns of prices",
        lambda x: [",".join([a, b.split(",")[2]]) for a, b in zip(x, PRICES, strict=True)],
    ),
    "a ticker and its volume": (
        at(0, lambda _: "Date,AA_close,AA_volume,CC"), "keep one column of closes a ticker, named by the ticker alone",
        lambda x: every(lambda c: [c[0], *c[2:]])(at(0, lambda _: "Date,,AA,CC")(x)),
    ),
    "LOW, OPEN and a stock": (
        at(0, lambda _: "Date,LOW,OPEN,CC"), "rename them: LOW1", at(0, lambda _: "Date,LOW1,OPEN1,CC"),
    ),
    "little history": (keep(0, 600), "add history", lambda x: [*x, *PRICES[600:]]),
    "every other week": (
        lambda x: [x[0], *x[1::10]], "resampled to the last close of each", lambda x: [
            x[0], *(",".join([day, *PRICES[1].split(",")[1:]])
                    for day in pd.date_range("1990-01-31", periods=240, freq="ME").strftime("%Y-%m-%d")),
        ],
    ),
}  # fmt: skip
LONGS: dict[str, Case] = {
    "a row twice": (again(5), "keep one", delete(6)),
    "no ticker": (cell(5, 1, ""), "name it, or delete the row", cell(5, 1, "AA")),
    "two tickers of a row": (
        lambda x: [f"{x[0]},symbol", *(f"{line},X" for line in x[1:])], "keep one, remove the other", without(3),
    ),
    "one ticker": (
        lambda x: [line for line in x if ",BB," not in line], "at least two of them",
        lambda x: [*x, *(line for line in LONG if ",BB," in line)],
    ),
}  # fmt: skip
SERIES: dict[str, tuple[str, Lines, Edit, str, Edit]] = {
    "a day missing": ("benchmark", LEVELS, delete(40), "add a row per trading day", lambda _: LEVELS),
    "three columns": (
        "benchmark", LEVELS, every(lambda c: [*c, "1"]), "keep the date and the level", every(lambda c: c[:2]),
    ),
    "a blank level": ("benchmark", LEVELS, cell(40, 1, ""), "supply it or delete the row", cell(40, 1, "140")),
    "percents": ("cash_yield", RATES, column(1, "5.3"), "write 5 % as 0.05", column(1, "0.053")),
    "no known rate": ("cash_yield", RATES, column(1, "."), "supply", column(1, "0.02")),
    "other names": (
        "signals", SIGNAL, at(0, lambda _: "Date,X,Y,Z"), "no column is one of the prices' names",
        at(0, lambda _: "Date,AA,BB,CC"),
    ),
    "a constant": (
        "signals", SIGNAL, every(lambda c: c if "AA" in c else [c[0], *"111"]), "remove the file", keep(0, 0),
    ),
    "days of another year": (
        "signals", SIGNAL, lambda x: [line.replace("201", "191", 1) for line in x], "supply rows on their days",
        lambda x: [line.replace("191", "201", 1) for line in x],
    ),
    "volumes of other names": (
        "volume", PRICES, at(0, lambda _: "Date,X,Y,Z"), "name them as there", at(0, lambda _: "Date,AA,BB,CC"),
    ),
    "volumes of other days": (
        "volume", PRICES, lambda x: [line.replace("201", "191", 1) for line in x], "supply volumes on their days",
        lambda x: [line.replace("191", "201", 1) for line in x],
    ),
}  # fmt: skip
SECTORS = ["ticker,sector", "AA,Energy", "BB,Energy", "CC,Health"]
SECTOR_FILES: dict[str, Case] = {
    "another header": (at(0, lambda _: "name,group"), "write ticker,sector", at(0, lambda _: "ticker,sector")),
    "three cells": (cell(2, 1, "Oil, gas"), "quoted if with commas", at(2, lambda _: 'BB,"Oil, gas"')),
    "blank": (cell(2, 1, ""), "name it, or delete the row", cell(2, 1, "Energy")),
    "twice": (again(2), "keep one row", delete(3)),
    "cash": (cell(2, 1, "Cash"), "give the sector another name", cell(2, 1, "Banks")),
    "missing": (delete(3), "add a row for each", lambda x: [*x, "CC,Health"]),
}
ENCODED: dict[str, tuple[str, Callable[[bytes], bytes], str, Callable[[bytes], bytes]]] = {
    "UTF-16": ("p.csv", lambda x: x.decode().encode("utf-16"), "save the file as UTF-8",
               lambda x: x.decode("utf-16").encode()),
    "Latin-1": ("p.csv", lambda x: x.replace(b"AA", "\u00c4".encode("latin-1")), "save the file as UTF-8",
                lambda x: x.decode("latin-1").encode()),
    "a workbook": ("p.csv", lambda x: b"PK\x03\x04" + x, "export the table as a CSV in UTF-8", lambda x: x[4:]),
    "a cut .gz": (
        "p.csv.gz", lambda x: gzip.compress(x)[:-300], "fetch it again", lambda _: gzip.compress(text(PRICES)),
    ),
    "no Parquet": ("p.parquet", lambda x: b"PAR1" + x, "or export a CSV", lambda x: x[4:]),
}  # fmt: skip


def text(lines: Lines) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(FinFlowError) as caught:
        act()
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(("name", "lines", "case"), [
    *(pytest.param("p.csv", PRICES, case, id=name) for name, case in FILES.items()),
    *(pytest.param("p.csv", LONG, case, id=f"long form, {name}") for name, case in LONGS.items()),
])  # fmt: skip
def test_prices(name: str, lines: Lines, case: Case, tmp_path: Path) -> None:
    spoil, remedy, mend = case
    path, spoilt = tmp_path / name, spoil(lines)
    words = ["env=csv", f"env.path='{path}'"]
    path.write_bytes(text(spoilt))
    assert remedy in refusal(lambda: read(words))
    path.write_bytes(text(mend(spoilt)))
    assert read(words) >= 240


@pytest.mark.parametrize("name", ENCODED)
def test_encodings(name: str, tmp_path: Path) -> None:
    file, spoil, remedy, mend = ENCODED[name]
    path, spoilt = tmp_path / file, spoil(text(PRICES))
    path.write_bytes(spoilt)
    assert remedy in refusal(lambda: read(["env=csv", f"env.path='{path}'"]))
    mended = path.with_suffix(".csv") if path.suffix == ".parquet" else path
    mended.write_bytes(mend(spoilt))
    assert read(["env=csv", f"env.path='{mended}'"]) == 700


@pytest.mark.parametrize("name", SERIES)
def test_files_beside_the_prices(name: str, tmp_path: Path) -> None:
    key, lines, spoil, remedy, mend = SERIES[name]
    (tmp_path / "p.csv").write_bytes(text(PRICES))
    folder = tmp_path / "beside"
    folder.mkdir()
    path, spoilt = folder / "s.csv", spoil(lines)
    words = ["env=csv", f"env.path='{tmp_path / 'p.csv'}'", f"env.{key}='{folder if key == 'signals' else path}'"]
    path.write_bytes(text(spoilt))
    assert remedy in refusal(lambda: read(words))
    mended = mend(spoilt)
    if mended:
        path.write_bytes(text(mended))
    else:  # the file is removed, and with it what named it
        path.unlink()
        words.pop()
    assert read(words) == 700


@pytest.mark.parametrize("name", SECTOR_FILES)
def test_sectors(name: str, tmp_path: Path) -> None:
    spoil, remedy, mend = SECTOR_FILES[name]
    path, spoilt = tmp_path / "sectors.csv", spoil(SECTORS)
    path.write_bytes(text(spoilt))
    assert remedy in refusal(lambda: read_sectors(path, ["AA", "BB", "CC"]))
    path.write_bytes(text(mend(spoilt)))
    assert len(read_sectors(path, ["AA", "BB", "CC"])) >= 3


def test_bars_within_a_day_become_days_by_the_printed_pandas(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    hours = pd.date_range("2012-01-02 10:00", periods=1000 * 4, freq="6h")
    frame = pd.DataFrame(np.resize(CLOSES, (4000, 3)), hours, ["AA", "BB", "CC"])
    frame.to_csv(path, index_label="Date")
    words = ["env=csv", f"env.path='{path}'"]
    found = re.search(r"\(pandas: (.*)\)$", refusal(lambda: read(words)))
    assert found is not None
    eval(found[1], {"frame": frame}).to_csv(path, index_label="Date")
    assert read(words) == 1001


CSV = ["env=csv", "env.path='{folder}/p.csv'"]
KEYS: dict[str, tuple[list[str], str, list[str]]] = {
    "no file": (["env=csv"], "write env.path=prices.csv", CSV),
    "a file that is not there": (["env=csv", "env.path='{folder}/q.csv'"], "check the path", CSV),
    "a file for another source": (["env=sp500", CSV[1]], "add env=csv", CSV),
    "a format for another source": (
        ["env=sp500", "env.format.separator=semicolon"], "add env=csv or leave it out", ["env=sp500"],
    ),
    "volumes for another source": (["env=sp500", "env.volume='{folder}/p.csv'"], "or leave it out", ["env=sp500"]),
    "a calendar for another source": (["env=sp500", "env.calendar=common"], "leave it out", ["env=sp500"]),
    "two marks": (
        [*CSV, "env.format.thousands=point"], "set one of them otherwise", [*CSV, "env.format.thousands=comma"],
    ),
    "a yield in percent": (
        ["env=sp500", "env.cash_yield=5"], "write 5 % as 0.05", ["env=sp500", "env.cash_yield=0.05"],
    ),
    "an unknown ticker": (
        ["env=sp500", "env.tickers=[AAPL,NOPE]"], "choose among AAPL", ["env=sp500", "env.tickers=[AAPL,AMD]"],
    ),
    "an end before all prices": (
        ["env=sp500", "env.start=1970-01-01", "env.end=1980-01-01"], "set it later",
        ["env=sp500", "env.start=1970-01-01", "env.end=2015-01-02"],
    ),
    "a start behind the end": (
        ["env=sp500", "env.start=2015-01-02", "env.end=2010-01-04"], "set one of them otherwise",
        ["env=sp500", "env.start=1995-01-02", "env.end=2010-01-04"],
    ),
    "regimes in disorder": (
        ["env=sp500", "env.regimes.stable=0.9"], "set one of them otherwise",
        ["env=sp500", "env.regimes.stable=0.5"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_keys(name: str, tmp_path: Path) -> None:
    words, remedy, mended = KEYS[name]
    (tmp_path / "p.csv").write_bytes(text(PRICES))

    def placed(given: list[str]) -> list[str]:
        return [word.format(folder=tmp_path) for word in given]

    assert remedy in refusal(lambda: read(placed(words)))
    assert read(placed(mended)) > 240


def _ratios(frame: pd.DataFrame) -> pd.DataFrame:
    return 1 + frame.pct_change().iloc[1:]


def _split(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(BB=frame.BB.where(frame.index < "2013-09-02", frame.BB / 2))


def _weekends(frame: pd.DataFrame) -> pd.DataFrame:
    """A coin of seven days beside stocks whose weekends are filled in."""
    stocks = frame[["AA", "BB"]].asfreq("D").ffill()
    steps = np.random.default_rng(1).normal(0, 0.01, len(stocks))
    return stocks.assign(CC=50 * np.exp(steps.cumsum()))


def _unquoted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(BB=frame.BB.where(frame.index < frame.index[-1]))


Frames = Callable[[pd.DataFrame], pd.DataFrame]
WARNED: dict[str, tuple[Frames, str, Frames, list[str]]] = {
    "returns and 1": (_ratios, "frame.cumprod()", lambda frame: frame.cumprod(), []),
    "an unadjusted split": (
        _split, "check that prices are adjusted",
        lambda frame: frame.assign(BB=frame.BB.where(frame.index >= "2013-09-02", frame.BB / 2)), [],
    ),
    "filled-in weekends": (
        _weekends, "leave such cells blank and add env.calendar=common",
        lambda frame: frame.assign(**{x: frame[x].where(frame.index.dayofweek < 5) for x in ("AA", "BB")}),
        ["env.calendar=common", "env.lost_rows=0.3"],
    ),
    "no quote yet": (_unquoted, "env.end=2014-09-04 leaves the row out", lambda frame: frame, ["env.end=2014-09-04"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNED)
def test_what_was_warned_of_is_gone_after_the_remedy(name: str, tmp_path: Path) -> None:
    spoil, remedy, mend, words = WARNED[name]
    path = tmp_path / "p.csv"
    csv = ["env=csv", f"env.path='{path}'"]
    spoilt = spoil(pd.DataFrame(CLOSES, pd.DatetimeIndex(DAYS, name="Date"), ["AA", "BB", "CC"]))
    spoilt.to_csv(path)
    assert any(remedy in line for line in build_market(load("pretrain", csv).env).warnings)
    mend(spoilt).to_csv(path)
    assert not [x for x in build_market(load("pretrain", [*csv, *words]).env).warnings if remedy in x]


def test_percents_are_warned_of_until_they_are_divided(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(text(PRICES))
    path = tmp_path / "r.csv"
    words = ["env=csv", f"env.path='{tmp_path / 'p.csv'}'", f"env.cash_yield='{path}'"]
    path.write_bytes(text(column(1, "0.12")(RATES)))
    assert any("divide them by 100" in line for line in build_market(load("pretrain", words).env).warnings)
    path.write_bytes(text(column(1, "0.0012")(RATES)))
    assert not [line for line in build_market(load("pretrain", words).env).warnings if "divide" in line]
