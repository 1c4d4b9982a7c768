"""Which columns of a table of prices hold what: the header alone decides, by the spelling of fields and tickers.

Fields of one ticker are not a portfolio: open, high, low and close as names are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finflow.data.csv_table import NUMBER, read_header
from finflow.errors import DataError, some

CLOSE, ADJUSTED, VOLUME = "close", "adjclose", "volume"
FIELDS = {
    "open": "open", "high": "high", "low": "low", "close": CLOSE, "volume": VOLUME,
    "adjclose": ADJUSTED, "adjustedclose": ADJUSTED, "closeadj": ADJUSTED, "closeadjusted": ADJUSTED,
    "adjopen": "open", "adjhigh": "high", "adjlow": "low", "adjvolume": VOLUME, "vol": VOLUME,
    "dividends": "events", "stocksplits": "events", "capitalgains": "events", "repaired": "events",
}  # fmt: skip
"""`spelling` of a field -> what it is."""
_CLOSES = {**{name: field for name, field in FIELDS.items() if field in (CLOSE, ADJUSTED)}, "price": CLOSE,
           "last": CLOSE, "lastprice": CLOSE, "pxlast": CLOSE, "prc": CLOSE, "settle": CLOSE}  # fmt: skip
_NAMES = {"tic", "ticker", "symbol", "tickersymbol", "asset", "instrument", "ric", "permno", "isin", "secid", "code",
          "stock", "name"}  # fmt: skip
_DATES = {"date", "day", "datadate", "tradedate", "tradingdate", "datetime", "timestamp", "time"}


class OneTicker(DataError):
    """A table with the fields of one ticker: not a portfolio, but valid as one file of a folder."""


@dataclass(frozen=True)
class Columns:
    """Columns to read of a table with one row per day: by ticker, the positions of its close and volume.

    header : of all columns, the dates' first. rows : that it takes. layout : in words.
    """

    header: tuple[str, ...]
    close: Mapping[str, int]
    volume: Mapping[str, int]
    rows: int
    layout: str


def spelling(name: str) -> str:
    """A name in lower case, without blanks and marks."""
    return "".join(c for c in name.casefold() if c.isalnum())


def columns_of(path: Path, head: list[tuple[int, list[str]]]) -> Columns:
    """Columns of a table whose first column holds dates, under one header row or two."""
    first = head[0][1]
    second = head[1][1] if len(head) > 1 else []
    rest = [spelling(name) for name in first[1:]]
    if len(second) == len(first) > 1:
        below = [spelling(name) for name in second[1:]]
        for fields, names in ((rest, second[1:]), (below, first[1:])):
            if all(name in FIELDS for name in fields) and all(names) and not any(map(NUMBER.fullmatch, names)):
                blank = len(head) > 2 and not any(head[2][1][1:])
                return _of_fields(path, fields, names, 3 if blank else 2)
    header = read_header(path, first)
    _refuse_fields(path, header)
    places = {name: place for place, name in enumerate(header[1:], 1)}
    return Columns(header, places, {}, 1, "a column a ticker")


def _of_fields(path: Path, fields: list[str], names: list[str], rows: int) -> Columns:
    """Columns under a row of fields and one of tickers."""
    places: dict[str, dict[str, int]] = {}
    for place, (field, name) in enumerate(zip(fields, names, strict=True), 1):
        held = places.setdefault(FIELDS[field], {})
        if name in held and FIELDS[field] in (CLOSE, ADJUSTED, VOLUME):
            raise DataError(f"{path}:1:{name}: its {FIELDS[field]} stands twice; keep one")
        held[name] = place
    close = places.get(ADJUSTED) or places.get(CLOSE)
    if close is None:
        raise DataError(
            f"{path}:1:{names[0]}: no row of closes among the fields {', '.join(dict.fromkeys(fields))}; add it"
        )
    missing = [name for name in dict.fromkeys(names) if name not in close]
    if missing:
        raise DataError(f"{path}:1:{missing[0]}: no close of it; add the column, or remove its others")
    said = "adjusted closes" if places.get(ADJUSTED) else "closes"
    volume = places.get(VOLUME, {})
    header = ("Date", *(f"{name} {field}" for name, field in zip(names, fields, strict=True)))
    layout = f"two header rows, {said}{' and volumes' if volume else ''} taken"
    return Columns(header, close, volume, rows, layout)


def _refuse_fields(path: Path, header: tuple[str, ...]) -> None:
    """Refuse the fields of one ticker, bare or with the tickers' names, where prices of several are needed."""
    names = header[1:]
    bare = [name for name in names if spelling(name) in FIELDS]
    if len(bare) >= 2:
        others = [name for name in names if name not in bare]
        raise OneTicker(
            f"{path}:1:{bare[0]}: {some(bare)} are fields of one ticker, no tickers; give a portfolio of several: a "
            "column of closes a ticker, or a folder with a file like this of each"
            + (f" (where these are tickers beside {some(others)}, rename them: {bare[0]}1)" if others else "")
        )
    mixed = [name for name in names if _field_of(name) is not None]
    if len({_field_of(name) for name in mixed}) >= 2:
        raise DataError(
            f"{path}:1:{mixed[0]}: {some(mixed)} mix tickers with fields of theirs; keep one column of closes a "
            "ticker, named by the ticker alone, or write the fields above the tickers, in two header rows"
        )


def _field_of(name: str) -> str | None:
    """Field that a name begins or ends with, as in AAPL_Close, Close AAPL, AAPL.Adj Close."""
    parts = re.findall(r"[^\s'(),_.:-]+", name.casefold())
    if len(parts) < 2:
        return None
    for piece in (parts[-1], "".join(parts[-2:]), parts[0], "".join(parts[:2])):
        if piece in FIELDS and len(piece) < len("".join(parts)):
            return FIELDS[piece]
    return None


def long_columns(path: Path, first: list[str]) -> dict[str, int] | None:
    """Places of date, ticker, close and volume in a header of the long form; None where it is another."""
    plain = [spelling(name) for name in first]
    dates, names, closes, volumes = (
        [place for place, name in enumerate(plain) if name in known]
        for known in (_DATES, _NAMES, _CLOSES, {name for name, field in FIELDS.items() if field == VOLUME})
    )
    if not (dates and names and closes):
        return None
    adjusted = [place for place in closes if _CLOSES[plain[place]] == ADJUSTED]
    found = {"date": dates, "ticker": names, "close": adjusted or closes, "volume": volumes}
    if [plain[place] for place in dates if plain[place] != "day"] == ["date"]:
        found["date"] = [plain.index("date")]  # `day` is the weekday's number in FinRL's files
    for what, places in found.items():
        if len(places) > 1:
            both = " and ".join(first[place] for place in places)
            raise DataError(f"{path}:1:{first[places[1]]}: {both} may both be the {what}; keep one, remove the other")
    return {what: places[0] for what, places in found.items() if places}
