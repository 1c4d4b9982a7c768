"""A table of what users hand in: what is read, and as what; what is refused, in which line; what is warned of."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import load_prices, market_of
from finflow.data.market import Market
from finflow.data.prices import Prices
from finflow.errors import FinFlowError

ROWS = 700
SUN_THU = pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu")


@dataclass(frozen=True)
class Place:
    """A folder, and a random walk of three names on business days."""

    folder: Path

    def walk(
        self, rows: int = ROWS, frequency: object = "B", names: str = "ABC", start: str = "2012-01-02"
    ) -> pd.DataFrame:
        days = pd.date_range(start, periods=rows, freq=frequency, name="Date")  # type: ignore[call-overload]
        steps = np.random.default_rng(0).normal(0, 0.01, (rows, len(names)))
        return pd.DataFrame(50 * np.exp(steps.cumsum(axis=0)), days, [2 * name for name in names])

    def yahoo(self) -> pd.DataFrame:
        close = self.walk()
        fields = {"Close": close, "High": close * 1.01, "Volume": close * 1e4}
        return pd.concat(fields, axis=1, names=["Price", "Ticker"])

    def csv(self, frame: pd.DataFrame, name: str = "p.csv", **words: object) -> list[str]:
        frame.to_csv(self.folder / name, **words)  # type: ignore[call-overload]
        return self.path(name)

    def text(self, content: str | bytes, name: str = "p.csv") -> list[str]:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return self.path(name)

    def path(self, name: str) -> list[str]:
        return [f"env.path='{self.folder / name}'"]

    def spoilt(self, row: int, column: int, value: object) -> pd.DataFrame:
        frame = self.walk().astype(object)
        frame.iloc[row, column] = value
        return frame


Make = Callable[[Place], list[str]]


def refused(make: Make, *parts: str) -> tuple[Make, tuple[str, ...], int]:
    return make, parts, 2


def warned(make: Make, *parts: str) -> tuple[Make, tuple[str, ...], int]:
    return make, parts, 1


def read(make: Make, *parts: str) -> tuple[Make, tuple[str, ...], int]:
    """Read without a word; the parts are of its calendar and size."""
    return make, parts, 0


def split(ratio: float, market: bool = False) -> Make:
    def make(place: Place) -> list[str]:
        frame = place.walk()
        frame.iloc[400:, slice(None) if market else 1] *= ratio
        return place.csv(frame)

    return make


def long(place: Place, **names: str) -> pd.DataFrame:
    table = place.yahoo().stack("Ticker", future_stack=True).reset_index()
    return table.rename(columns=str.lower).rename(columns=names)


def folder_of(place: Place, frames: dict[str, pd.DataFrame]) -> list[str]:
    (place.folder / "each").mkdir()
    for name, frame in frames.items():
        frame.to_csv(place.folder / "each" / f"{name}.csv")
    return place.path("each")


def each(place: Place, *fields: str) -> dict[str, pd.DataFrame]:
    walk = place.walk()
    return {name: pd.DataFrame(dict.fromkeys(fields, walk[name])) for name in walk}


def mixed(place: Place) -> pd.DataFrame:
    """Two stocks and a coin: the stocks have no weekends."""
    frame = place.walk(1100, "D")
    frame.loc[frame.index.dayofweek >= 5, ["AA", "BB"]] = np.nan
    return frame[frame.index < "2014-12-20"]


def ended(place: Place) -> pd.DataFrame:
    return place.walk().assign(BB=lambda table: table.BB.where(table.index < "2014-08-01"))


def filled(place: Place) -> pd.DataFrame:
    return mixed(place).ffill()


def without(frame: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    return pd.concat([frame.iloc[:first], frame.iloc[last:]])


def rates(place: Place, text: str) -> list[str]:
    (place.folder / "r.csv").write_text(text)
    return [*place.csv(place.walk()), f"env.cash_yield='{place.folder / 'r.csv'}'"]


def fred(place: Place, rate: str, missing: str = ".") -> list[str]:
    days = pd.date_range("2011-12-01", periods=900, freq="B").strftime("%Y-%m-%d")
    lines = [f"{day},{missing if k % 25 == 7 else rate}" for k, day in enumerate(days)]
    return rates(place, "\n".join(["observation_date,DGS3MO", *lines, ""]))


GERMAN = {"sep": ";", "decimal": ",", "date_format": "%d.%m.%Y"}
INPUTS: dict[str, tuple[Make, tuple[str, ...], int]] = {
    # 1. calendars
    "business days": read(lambda p: p.csv(p.walk()), "business days, 252 days a year", "700 rows"),
    "seven days": read(lambda p: p.csv(p.walk(1100, "D")), "seven days a week, 365 days a year", "1100 rows"),
    "weeks": read(lambda p: p.csv(p.walk(300, "W-FRI")), "weekly, 52 weeks a year", "300 rows"),
    "months": read(lambda p: p.csv(p.walk(230, "ME", start="2000-01-31")), "monthly, 12 months a year"),
    "Sunday to Thursday": read(lambda p: p.csv(p.walk(700, SUN_THU)), "Sunday to Thursday, 252 days a year"),
    "seven days, said to be 252": read(lambda p: [*p.csv(p.walk(1100, "D")), "env.periods_per_year=252"], "252 days"),
    "every other day": refused(lambda p: p.csv(p.walk(700, "2D")), "rows are 2 days apart", "closes of one of these"),
    "quarters": refused(lambda p: p.csv(p.walk(55, "QE")), "days apart, as a rule", "nor monthly"),
    "bars of five minutes": refused(
        lambda p: p.csv(p.walk().set_axis(pd.date_range("2012-01-02 09:30", periods=ROWS, freq="5min"))),
        "p.csv:2:1: '2012-01-02 09:30:00' has a time of day", "resample('D').last()",
    ),
    "bars of an hour from midnight": refused(
        lambda p: p.csv(p.walk().set_axis(pd.date_range("2012-01-02", periods=ROWS, freq="h", tz="UTC"))),
        "p.csv:3:1: '2012-01-02 01:00:00+00:00' has a time of day", "write the date alone",
    ),
    "too few weeks": refused(lambda p: p.csv(p.walk(200, "W-FRI")), "200 rows of prices", "least 243; add"),
    "too few days": refused(lambda p: p.csv(p.walk(600)), "600 rows of prices", "or lower env.min_history"),
    "too few days, at the least history": refused(
        lambda p: [*p.csv(p.walk(300)), "env.min_history=22"], "300 rows of prices", "at least 443; add history",
    ),
    "a year less a day in eight": warned(
        lambda p: p.csv(p.walk(900)[[k % 8 > 0 for k in range(900)]]), " rows a year, by which figures are", "per_year",
    ),
    "a hole of a year": warned(lambda p: p.csv(without(p.walk(1000), 400, 660)), "dates: 1 gap of more than 10 days"),
    # 2. one ticker's fields
    "one ticker's fields": refused(
        lambda p: p.csv(p.yahoo().xs("AA", axis=1, level="Ticker")), "p.csv:1:Close: ", "fields of one ticker",
        "a folder with a file like this of each",
    ),
    "fields of a coin worth little": refused(
        lambda p: p.csv((1e-6 * p.walk()).set_axis(["Open", "High", "Close"], axis=1), float_format="%.4e"),
        "p.csv:1:Open: Open, High, Close are fields",
    ),
    "fields, shouted": refused(
        lambda p: p.csv(p.walk().set_axis(["OPEN", "HIGH", "LOW"], axis=1)), "p.csv:1:OPEN: OPEN, HIGH, LOW are fields",
    ),
    "fields as suffixes": refused(
        lambda p: p.csv(p.yahoo().set_axis([f"{b}_{a}" for a, b in p.yahoo().columns], axis=1)), "p.csv:1:AA_Close: ",
        "one column of closes a ticker",
    ),
    "fields as prefixes": refused(
        lambda p: p.csv(p.yahoo().set_axis([f"Adj {a} {b}" for a, b in p.yahoo().columns], axis=1)),
        "mix tickers with fields", "two header rows",
    ),
    "one ticker below two headers": refused(
        lambda p: p.csv(p.yahoo().xs("AA", axis=1, level="Ticker", drop_level=False)), "p.csv:1:AA: only one ticker",
    ),
    "LOW and OPEN beside a stock": refused(
        lambda p: p.csv(p.walk().set_axis(["LOW", "OPEN", "AAPL"], axis=1)), "rename them: LOW1",
    ),
    "LOW and OPEN renamed": read(lambda p: p.csv(p.walk().set_axis(["LOW1", "OPEN1", "AAPL"], axis=1)), "3 names"),
    "LOW alone among stocks": read(lambda p: p.csv(p.walk().set_axis(["LOW", "KO", "AAPL"], axis=1)), "3 names"),
    # 3. layouts
    "two header rows": read(lambda p: p.csv(p.yahoo()), "3 names", "volumes"),
    "two header rows, gzipped": read(lambda p: p.csv(p.yahoo(), "p.csv.gz"), "3 names", "volumes"),
    "a damaged .gz": refused(
        lambda p: p.text(gzip.compress(p.walk().to_csv().encode())[:-400], "p.csv.gz"), "a damaged .gz file",
    ),
    "two header rows without closes": refused(
        lambda p: p.csv(p.yahoo()[["High", "Volume"]]), "p.csv:1:AA: no row of closes among the fields high, volume",
    ),
    "long form": read(lambda p: p.csv(long(p), index=False), "3 names", "volumes"),
    "FinRL": read(lambda p: p.csv(long(p, ticker="tic").assign(day=0)), "3 names", "volumes"),
    "long form, two names of names": refused(
        lambda p: p.csv(long(p).assign(symbol="x"), index=False), "ticker and symbol may both be the ticker",
    ),
    "long form, two dates": refused(
        lambda p: p.csv(long(p).assign(timestamp="2012-01-02"), index=False), "date and timestamp may both be the date",
    ),
    "long form, a row twice": refused(
        lambda p: p.csv(pd.concat([long(p), long(p).iloc[[5]]]), index=False),
        "p.csv:2102:CC: CC has a row for 2012-01-03 on line 7 already",
    ),
    "long form, no ticker in a row": refused(
        lambda p: p.csv(long(p).assign(ticker=lambda t: t.ticker.mask(t.index == 3)), index=False),
        "p.csv:5:ticker: a row without a ticker",
    ),
    "long form, one ticker": refused(
        lambda p: p.csv(long(p).query("ticker == 'AA'"), index=False), "AA: only one ticker",
    ),
    "long form, text": refused(
        lambda p: p.csv(long(p).astype(object).assign(close="n/a"), index=False), "p.csv:2:close: 'n/a' is",
    ),
    "long form, blank days": refused(
        lambda p: p.csv(long(p).drop(index=[301, 304]), index=False), "in all 2 of 700 rows lack BB (2)",
        "env.calendar=common",
    ),
    "a folder": read(lambda p: folder_of(p, each(p, "Close", "Volume")), "3 names", "volumes"),
    "a folder of single columns": read(lambda p: folder_of(p, each(p, "Price")), "3 names"),
    "a folder without closes": refused(
        lambda p: folder_of(p, each(p, "Open", "High")), "AA.csv:1:Open: none of its 2 columns is called Close",
    ),
    "a folder of one": refused(
        lambda p: folder_of(p, {"AA": each(p, "Close")["AA"]}), "a directory with 1 file", "one of each ticker",
    ),
    "an empty folder": refused(lambda p: folder_of(p, {}), "a directory with no files", "name a CSV file"),
    "Parquet": read(lambda p: (p.walk().to_parquet(p.folder / "p.parquet"), p.path("p.parquet"))[1], "3 names"),
    "long Parquet": read(
        lambda p: (long(p).to_parquet(p.folder / "p.parquet"), p.path("p.parquet"))[1], "3 names", "volumes",
    ),
    "no Parquet": refused(lambda p: p.text(b"PAR1 rest", "p.parquet"), "not to be read as Parquet", "export a CSV"),
    "volumes of their own file": read(
        lambda p: [*p.csv(p.walk()), f"env.volume='{p.folder / 'v.csv'}'", *p.csv(p.walk() * 100, "v.csv")[:0]],
        "3 names", "volumes",
    ),
    "negative volumes": refused(
        lambda p: [*p.csv(p.walk()), f"env.volume='{p.folder / 'v.csv'}'", *p.csv(-p.walk(), "v.csv")[:0]],
        "env.volume=", "v.csv:2:AA: volume -", "is negative",
    ),
    "volumes of other names": refused(
        lambda p: [*p.csv(p.walk()), f"env.volume='{p.folder / 'v.csv'}'", *p.csv(p.walk(names="XYZ"), "v.csv")[:0]],
        "v.csv:1:XX: no column is one of the prices' names",
    ),
    "volumes twice": refused(
        lambda p: [*p.csv(p.yahoo()), f"env.volume='{p.folder / 'p.csv'}'"], "the prices have volumes of their own",
    ),
    "midnight in New York": read(lambda p: p.csv(p.walk().tz_localize("America/New_York")), "700 rows"),
    "German": refused(
        lambda p: p.csv(p.walk(), **GERMAN),
        "add env.format.separator=semicolon env.format.decimal=comma env.format.date=DD.MM.YYYY",
    ),
    "German, as told": read(
        lambda p: [*p.csv(p.walk(), **GERMAN), "env.format.separator=semicolon", "env.format.decimal=comma",
                   "env.format.date=DD.MM.YYYY"], "700 rows",
    ),
    "tabs": refused(lambda p: p.csv(p.walk(), sep="\t"), "separated by 'tab'; add env.format.separator=tab"),
    "American days": refused(lambda p: p.csv(p.walk(), date_format="%m/%d/%Y"), "or add env.format.date=MM/DD/YYYY"),
    "British days": refused(lambda p: p.csv(p.walk(), date_format="%d/%m/%Y"), "or add env.format.date=DD/MM/YYYY"),
    "compact days": refused(lambda p: p.csv(p.walk(), date_format="%Y%m%d"), "or add env.format.date=YYYYMMDD"),
    "thousands": refused(
        lambda p: p.csv((1000 * p.walk()).map(lambda x: f"{x:,.2f}")), "or add env.format.thousands=comma",
    ),
    "two decimal marks": refused(
        lambda p: [*p.csv(p.walk()), "env.format.decimal=comma"], "env.format.decimal=comma: separates the cells too",
    ),
    # 4. the newest row
    "a blank in the newest row": warned(
        lambda p: p.csv(p.spoilt(-1, 1, None)), "BB: no price on 2014-09-05, the newest row", "env.end=2014-09-04",
    ),
    "a delisting": warned(
        lambda p: p.csv(ended(p)), "BB: last price on 2014-07-31",
    ),
    # 5. splits
    "2:1": warned(split(1 / 2), "BB: price moves by", "like an unadjusted split of 2:1"),
    "3:2": warned(split(2 / 3), "BB: price moves by", "like an unadjusted split of 3:2"),
    "4:3": warned(split(3 / 4), "like an unadjusted split of 4:3"),
    "10:1": warned(split(1 / 10), "like an unadjusted split of 10:1"),
    "1:5": warned(split(5.0), "like an unadjusted split of 1:5"),
    "all fall by a quarter": read(split(3 / 4, market=True), "3 names"),
    # 7. mixed calendars
    "stocks and a coin": refused(
        lambda p: p.csv(mixed(p)), "of 1083 rows lack AA (", "env.calendar=common env.lost_rows=0.29",
    ),
    "stocks and a coin, common": refused(
        lambda p: [*p.csv(mixed(p)), "env.calendar=common"], "more than env.lost_rows=0.05", "add env.lost_rows=0.29",
    ),
    "stocks and a coin, common, said twice": warned(
        lambda p: [*p.csv(mixed(p)), "env.calendar=common", "env.lost_rows=0.29"], "common left out 308 of",
    ),
    "weekends filled in": warned(lambda p: p.csv(filled(p)), "AA: repeats its close on", "add env.calendar=common"),
    "a blank day": refused(lambda p: p.csv(p.spoilt(300, 1, None)), "p.csv:302:BB: a blank between prices"),
    "a blank day, common": warned(
        lambda p: [*p.csv(p.spoilt(300, 1, None)), "env.calendar=common"], "left out 1 of 700 rows, which lack BB (1)",
    ),
    # 9. rates
    "rates as fractions, holidays as points": read(lambda p: fred(p, "0.05"), "3 names"),
    "holidays as blanks": read(lambda p: fred(p, "0.05", ""), "3 names"),
    "percents of a tenth": warned(lambda p: fred(p, "0.10"), "env.cash_yield: cash earns 10.0 % a year", "by 100"),
    "percents": refused(lambda p: fred(p, "5.33"), "env.cash_yield=", "rate 5.33 is not a yearly fraction"),
    "no rate at all": refused(lambda p: fred(p, "."), "no rate in the whole file"),
    # 10. what is not prices
    "1 + return": warned(lambda p: p.csv(1 + p.walk().pct_change().iloc[1:]), "1 + return, not prices?", "cumprod()"),
    "returns": refused(lambda p: p.csv(p.walk().pct_change().iloc[1:]), "is not positive"),
    "a zero": refused(lambda p: p.csv(p.spoilt(300, 1, 0)), "price 0 is not positive", "env.calendar=common"),
}  # fmt: skip


def market_from(words: list[str]) -> tuple[Prices, Market]:
    env = load("pretrain", words).env
    prices = load_prices(env)
    return prices, market_of(prices, env)


def size(market: Market) -> str:
    return f"{market.calendar.line()}; {len(market.dates)} rows; {market.n - 1} names"


@pytest.mark.parametrize("name", INPUTS)
def test_input(name: str, tmp_path: Path) -> None:
    make, parts, outcome = INPUTS[name]
    words = ["env=csv", *make(Place(tmp_path))]
    if outcome == 2:
        with pytest.raises(FinFlowError) as caught:
            market_from(words)
        assert caught.value.exit_code == 2
        said = str(caught.value)
        assert "\n" not in said
        assert [part for part in parts if part not in said] == [], said
        return
    prices, market = market_from(words)
    notes = [line for line in market.warnings if not line.startswith("regimes:")]
    if outcome == 1:
        said = "\n".join(notes)
    else:
        assert notes == []
        said = size(market) + ("; volumes" if prices.volume is not None else "")
    assert [part for part in parts if part not in said] == [], said


def test_there_are_enough() -> None:
    assert len(INPUTS) >= 60
