"""A user's CSV: what is believed, and the one line that everything else gets."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data import csv_source, csv_table
from finflow.data.csv_source import load_csv
from finflow.data.prices import Prices
from finflow.errors import DataError
from finflow.schema.sections import Env

GOOD = "Date,AA,BB\n2020-01-02,1.5,10\n2020-01-03,1.6,11\n2020-01-06,1.7,12\n"
Write = Callable[[str], Path]
Read = Callable[[Path], Prices]


@pytest.fixture(scope="module")
def env() -> Env:
    return load("pretrain", ["env=csv", "env.path=prices.csv"]).env


@pytest.fixture
def read(env: Env, monkeypatch: pytest.MonkeyPatch) -> Read:
    """`load_csv`, for which three rows are enough."""
    monkeypatch.setattr(csv_source, "minimum_rows", lambda *_: 3)
    return lambda path: load_csv(env.model_copy(update={"path": str(path)}))


def line(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


# name: (file, row:column expected, part of what is wrong, part of the remedy)
MALFORMED: dict[str, tuple[str | bytes, str, str, str]] = {
    "empty": ("", "1:1", "empty", "write a header"),
    "blank lines only": ("\n\n", "1:1", "empty", "write a header"),
    "header only": ("Date,AA,BB\n", "2:Date", "no rows", "add a row"),
    "no header": (GOOD.split("\n", 1)[1], "1:1", "no header", "add a row of column names"),
    "latin-1": (line("BB", "B\xe9").encode("latin-1"), "1:3", "0xe9 is not UTF-8", "save the file as UTF-8"),
    "latin-1 lower down": (line("1.7", "1.7\xa0").encode("latin-1"), "4:2", "not UTF-8", "save the file as UTF-8"),
    "utf-16": (GOOD.encode("utf-16"), "1:1", "UTF-16", "save the file as UTF-8"),
    "binary": (b"Date,AA,BB\n2020-01-02,\x00\x01,3\n", "2:2", "binary", "export the table"),
    "spreadsheet": (b"PK\x03\x04rest of a workbook", "1:1", "binary", "export the table"),
    "text in a cell": (line("1.6", "n.m."), "3:AA", "'n.m.' is not a number", "write a number"),
    "NaN": (line("1.6", "NaN"), "3:AA", "'NaN' is not a number", "leave the cell blank"),
    "infinity": (line("11", "inf"), "3:BB", "'inf' is not a number", "write a number"),
    "overflow": (line("11", "1e400"), "3:BB", "beyond the range", "correct it"),
    "many digits": (line("11", "1" * 400), "3:BB", "beyond the range", "correct it"),
    "zero": (line("1.6", "0"), "3:AA", "price 0 is not positive", "correct it"),
    "negative": (line("12", "-12"), "4:BB", "price -12 is not positive", "correct it"),
    "huge": (line("11", "1e308"), "3:BB", "price 1e+308 is outside 1e-06 ... 1e+09", "multiply the whole column"),
    "just too high": (line("11", "1.1e9"), "3:BB", "is outside 1e-06 ... 1e+09", "correct it"),
    "denormal": (line("1.6", "1e-320"), "3:AA", "is outside 1e-06 ... 1e+09", "correct it"),
    "just too low": (line("1.6", "0.0000009"), "3:AA", "price 9e-07 is outside", "correct it"),
    "underscore": (line("11", "1_1"), "3:BB", "'1_1' is not a number", "write a number"),
    "other digits": (line("11", "\uff11\uff12"), "3:BB", "is not a number", "write a number"),
    "currency": (line("11", "$11"), "3:BB", "'$11' is not a number", "write a number"),
    "thousands, quoted": (line("11", '"1,100.5"'), "3:BB", "thousands separator", "write 1100.5"),
    "thousands, bare": (line("11", "1,100"), "3:4", "4 cells where the header has 3", "without thousands"),
    "bad date": (line("2020-01-03", "2020-02-30"), "3:Date", "'2020-02-30' is not a date", "YYYY-MM-DD"),
    "american date": (line("2020-01-03", "01/03/2020"), "3:Date", "is not a date", "YYYY-MM-DD"),
    "compact date": (line("2020-01-03", "20200103"), "3:Date", "is not a date", "YYYY-MM-DD"),
    "blank date": (line("2020-01-03", ""), "3:Date", "'' is not a date", "YYYY-MM-DD"),
    "time zone": (line("2020-01-03", "2020-01-03 00:00:00-05:00"), "3:Date", "time zone", "write the date alone"),
    "time": (line("2020-01-03", "2020-01-03T16:00"), "3:Date", "time of day", "write the date alone"),
    "duplicate date": (line("2020-01-06", "2020-01-03"), "4:Date", "stands on line 3 already", "keep one"),
    "unsorted": (line("2020-01-06", "2020-01-01"), "4:Date", "comes after 2020-01-03", "sort the rows"),
    "future": (line("2020-01-06", "2999-06-02"), "4:Date", "in the future", "remove the row"),
    "duplicate ticker": (line("BB", "AA"), "1:AA", "stands twice", "keep one"),
    "empty ticker": (line("BB", " "), "1:3", "without a name", "name it"),
    "ticker CASH": (line("BB", "CASH"), "1:CASH", "clashes", "rename it"),
    "ticker cash": (line("AA", "cash"), "1:cash", "clashes", "rename it"),
    "short row": (line("2020-01-03,1.6,11", "2020-01-03,1.6"), "3:BB", "2 cells", "blank where there is no value"),
    "long row": (line("1.6,11", "1.6,11,"), "3:4", "4 cells", "a cell per column"),
    "one ticker": ("Date,AA\n2020-01-02,1\n", "1:AA", "only one ticker", "at least two"),
    "one column": ("Date\n2020-01-02\n", "1:2", "only one column", "values in the others"),
    "semicolons": (GOOD.replace(",", ";"), "1:1", "separated by ';'", "add env.format.separator=semicolon"),
    "tabs": (GOOD.replace(",", "\t"), "1:1", "separated by 'tab'", "add env.format.separator=tab"),
    "blank between prices": (line("1.6", ""), "3:AA", "blank between prices", "add env.calendar=common"),
    "spaces between prices": (line("1.6", "  "), "3:AA", "blank between prices", "add env.calendar=common"),
    "blank row of prices": (line("1.7,12", ","), "4:AA", "without any price", "delete the row"),
    "blank line": (line("2020-01-06", "\n2020-01-06"), "4:1", "blank line", "delete it"),
    "no price at all": (
        "Date,AA,BB,CC\n2020-01-02,1,,3\n2020-01-03,1,,3\n2020-01-06,2,,3\n",
        "2:BB",
        "no price in the whole column",
        "remove the column",
    ),
    "open quote": (line("11", '"11'), "3:1", "not a CSV record", "check its quotes"),
    "too short": (line("2020-01-06,1.7,12\n", ""), "3:Date", "2 rows of prices", "at least 3; add history"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_gets_one_line_with_place_and_remedy(name: str, read: Read, tmp_path: Path) -> None:
    content, place, wrong, remedy = MALFORMED[name]
    path = tmp_path / "prices.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}:{place}: ")
    said = message.removeprefix(f"{path}:{place}: ")
    assert wrong in said
    assert remedy in said
    assert re.search(r"; ", said)


def test_missing_file_and_directory_are_named(read: Read, tmp_path: Path) -> None:
    for path, wrong in ((tmp_path / "none.csv", "no such file; check the path"), (tmp_path, "a directory")):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {wrong}")
        assert "\n" not in str(caught.value)


def test_too_short_a_history_names_the_number(write_csv: Write) -> None:
    path = write_csv(GOOD)
    with pytest.raises(DataError, match="3 rows of prices, features and folds need at least 673;"):
        load_csv(load("pretrain", ["env=csv", f"env.path={path}"]).env)


@pytest.mark.parametrize("header", ["Date", "date", "DATE", " Date ", "", "index", "Trading day", "\ufeffDate"])
def test_header_of_the_dates_may_be_any_name(header: str, read: Read, write_csv: Write) -> None:
    prices = read(write_csv(GOOD.replace("Date", header, 1)))
    assert prices.tickers == ("AA", "BB")
    assert prices.dates.tolist() == [date(2020, 1, 2), date(2020, 1, 3), date(2020, 1, 6)]
    np.testing.assert_array_equal(prices.close, [[1.5, 10], [1.6, 11], [1.7, 12]])


@pytest.mark.parametrize(
    "text", [GOOD.replace("\n", "\r\n"), GOOD + "\n\n", GOOD.rstrip("\n"), line("1.6", ' "1.6"'[1:])]
)
def test_line_ends_trailing_lines_and_quotes_are_fine(text: str, read: Read, write_csv: Write) -> None:
    np.testing.assert_array_equal(read(write_csv(text)).close, [[1.5, 10], [1.6, 11], [1.7, 12]])


def test_numbers_are_read_exactly(read: Read, write_csv: Write) -> None:
    path = write_csv(line("1.6", " 1.6e0 ").replace("11", "0.1234567890123456789"))
    assert read(path).close[1].tolist() == [1.6, 0.1234567890123456789]


def test_the_ends_of_the_range_are_prices(read: Read, write_csv: Write) -> None:
    prices = read(write_csv(line("1.6", "0.000001").replace("11", "1000000000")))
    assert prices.close[1].tolist() == [1e-6, 1e9]


def test_blanks_before_the_first_and_after_the_last_price_are_kept(read: Read, write_csv: Write) -> None:
    prices = read(write_csv(line("1.5,", ",").replace("12", "")))
    np.testing.assert_array_equal(prices.close, [[np.nan, 10], [1.6, 11], [1.7, np.nan]])


def test_today_itself_is_no_future(read: Read, write_csv: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    class Day(date):
        @classmethod
        def today(cls) -> date:
            return date(2020, 1, 6)

    monkeypatch.setattr(csv_table, "date", Day)
    assert len(read(write_csv(GOOD)).dates) == 3
