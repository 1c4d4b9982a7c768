"""Prices by the real yfinance client from a loopback Yahoo: whole, or one line that says what to do."""

import json
import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.data import yahoo
from finflow.data.build import build_market, load_prices
from finflow.data.market import ABSENT, TRADABLE
from finflow.errors import ConfigError, DataError
from finflow.schema.sections import Env

from .conftest import FIRST, LAST, LoopbackYahoo, Stock

EnvOf = Callable[..., Env]


def refusal(env: Env, cache: Path | None) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        load_prices(env, cache)
    text = str(caught.value)
    assert "\n" not in text
    return text


def files(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir()) if cache.exists() else []


def test_what_comes_back_is_what_yahoo_has(market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    prices = load_prices(env_of("BBB", "AAA"), tmp_path / "cache")
    assert prices.tickers == ("BBB", "AAA")
    assert [str(day) for day in prices.dates] == [str(day.date()) for day in market.stocks["AAA"].days]
    np.testing.assert_allclose(prices.close[:, 0], market.stocks["BBB"].adjusted, rtol=1e-12)
    assert prices.volume is not None
    np.testing.assert_array_equal(prices.volume[:, 1], market.stocks["AAA"].volume)
    assert set(market.cookies) == {"A3=loopback"}
    assert all(query["crumb"] == ["loopback-crumb"] for path, query in market.asked if "/chart/" in path)


def test_coins_keep_all_days_of_the_week(market: LoopbackYahoo, env_of: EnvOf) -> None:
    days = pd.date_range(FIRST, LAST)
    for ticker in ("BTC-USD", "ETH-USD"):
        rng = np.random.default_rng(len(market.stocks))
        market.stocks[ticker] = Stock(days, 100 * np.exp(rng.normal(0, 0.03, len(days)).cumsum()))
    built = build_market(env_of("BTC-USD", "ETH-USD"))
    assert [str(day) for day in built.dates] == [str(day.date()) for day in days]
    assert (built.calendar.year, built.calendar.name) == (365, "seven days a week")


def test_dividends_are_in_the_returns_and_splits_are_no_jump(market: LoopbackYahoo, env_of: EnvOf) -> None:
    stock = market.list_stock("PAYS")
    stock.pay("2019-05-15", 2.0)
    stock.split("2019-09-02", 4)
    prices = load_prices(env_of("AAA", "PAYS"))
    at = int(np.flatnonzero(prices.dates == np.datetime64("2019-05-15"))[0])
    before, after = stock.close[at - 1], stock.close[at]
    assert prices.close[at, 1] / prices.close[at - 1, 1] == pytest.approx(after / (before - 2.0), rel=1e-9)
    others = np.delete(np.arange(1, len(prices.dates)), at - 1)
    np.testing.assert_allclose(
        prices.close[others, 1] / prices.close[others - 1, 1], stock.close[others] / stock.close[others - 1], rtol=1e-9
    )


def test_the_second_time_nothing_is_asked(market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    first = load_prices(env_of("AAA", "BBB", "NONE"), tmp_path)
    asked = len(market.asked)
    again = load_prices(env_of("AAA", "BBB", "NONE"), tmp_path)
    assert len(market.asked) == asked
    np.testing.assert_array_equal(again.close, first.close)
    assert again.warnings == first.warnings
    assert files(tmp_path) == [".json", ".safetensors"]


def test_everything_that_shapes_the_answer_names_the_file(env_of: EnvOf) -> None:
    envs = [
        env_of(),
        env_of("AAA", "BBB"),
        env_of("BBB", "AAA"),
        env_of(first="2018-01-03"),
        env_of(last="2020-12-30"),
    ]
    assert len({yahoo.request_of(env).name for env in envs}) == len(envs)
    assert yahoo.request_of(env_of()).name == yahoo.request_of(env_of()).name


def test_the_record_beside_says_where_prices_come_from(market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    load_prices(env_of("AAA", "BBB", "NONE"), tmp_path)
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert record["tickers"] == ["AAA", "BBB", "NONE"]
    assert record["without_prices"] == ["NONE"]
    assert record["asked"] == record["received"] == [FIRST, LAST]
    assert record["adjusted"] is True
    assert record["client"] == "yfinance 1.7.0"
    assert abs(pd.Timestamp.now("UTC") - pd.Timestamp(record["fetched"])) < pd.Timedelta(minutes=5)


@pytest.mark.parametrize("kind", ["429", "500", "500 json", "empty", "null", "half"])
def test_a_passing_fault_is_asked_again(kind: str, market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    market.faults["BBB"] = [kind] * 3
    prices = load_prices(env_of(), tmp_path)
    assert np.isfinite(prices.close).all()
    assert market.charts().count("BBB") > market.charts().count("AAA")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("429!", "too many requests (HTTP 429)"),
        ("500!", "HTTP 500"),
        ("500 json!", "HTTP 500"),
        ("empty!", "an answer that is empty or cut short"),
        ("null!", "an answer that is empty or cut short"),
        ("hang!", "no connection ("),
    ],
)
def test_a_lasting_fault_is_one_line_in_bounded_time_and_keeps_nothing(
    kind: str, said: str, market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yahoo, "PATIENCE", 1.0)
    market.faults["BBB"] = [kind]
    begin = time.monotonic()
    text = refusal(env_of(), tmp_path / "cache")
    assert time.monotonic() - begin < 2.5
    assert text.startswith(f"env.tickers: Yahoo is out of reach ({said}")
    assert "after 1 of 3 tickers) and nothing is cached for these 3 tickers" in text
    assert all(way in text for way in ("try again later", "use a cache", "env=sp500", "env=csv env.path=prices.csv"))
    assert files(tmp_path / "cache") == []
    market.faults.clear()
    assert np.isfinite(load_prices(env_of(), tmp_path / "cache").close).all()


def test_a_crumb_that_is_refused_is_done_without(market: LoopbackYahoo, env_of: EnvOf) -> None:
    market.crumb_busy = True
    assert np.isfinite(load_prices(env_of()).close).all()


def test_unknown_delisted_and_late_tickers_are_named_and_masked(
    market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path
) -> None:
    market.list_stock("LATE", first="2019-06-03")
    market.list_stock("GONE", last="2020-03-31")
    market.list_stock("PAST", first="2010-01-04", last="2011-12-30")  # known to Yahoo, but not on these days
    built = build_market(env_of("AAA", "LATE", "GONE", "PAST", "NONE"), tmp_path)
    named = {line.split(":")[0]: line for line in built.warnings if line.split(":")[0] in built.assets}
    assert "no price before 2019-06-03; untradable until then" in named["LATE"]
    assert "last price on 2020-03-31" in named["GONE"]
    for ticker in ("PAST", "NONE"):
        assert "Yahoo has no prices of it" in named[ticker]
        assert (built.status[:, built.assets.index(ticker)] == ABSENT).all()
    status = dict(zip(built.assets, built.status.T, strict=True))
    listed = built.dates >= np.datetime64("2019-06-03")
    assert (status["LATE"][~listed] == ABSENT).all()
    assert (status["LATE"][-1], status["GONE"][-1], status["AAA"][-1]) == (TRADABLE, ABSENT, TRADABLE)
    assert any("hindsight" in line for line in built.warnings)


def test_no_known_ticker_at_all_is_refused(market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    text = refusal(env_of("XX", "YY"), tmp_path / "cache")
    assert text.startswith("env.tickers: Yahoo has no prices of any of XX, YY from 2018-01-02 to 2020-12-31")
    assert files(tmp_path / "cache") == []


def test_a_day_that_one_name_lacks_is_left_out_and_named(market: LoopbackYahoo, env_of: EnvOf) -> None:
    market.stocks["BBB"].without("2019-03-05")
    prices = load_prices(env_of())
    assert np.datetime64("2019-03-05") not in prices.dates
    assert len(prices.dates) == len(market.stocks["AAA"].days) - 1
    assert np.isfinite(prices.close).all()
    assert any(line.startswith("BBB: no price on 1 days (2019-03-05)") for line in prices.warnings)
    for day in market.stocks["BBB"].days[10:60]:
        market.stocks["BBB"].without(str(day.date()))
    said = refusal(env_of(), None)
    assert "BBB: no price on 51 of its 783 days" in said
    told = re.search(r"leave it out, .* or add env\.calendar=common env\.lost_rows=([\d.]+)", said)
    assert told is not None
    common = env_of().model_copy(update={"calendar": "common", "lost_rows": float(told[1])})
    assert len(load_prices(common).dates) == 783 - 51
    assert len(load_prices(env_of("AAA", "CCC")).dates) == 783


def test_a_close_that_is_no_price_is_refused(market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    market.stocks["BBB"].adjusted[3] = -0.5
    text = refusal(env_of(), tmp_path / "cache")
    assert text.startswith("env.tickers: BBB: Yahoo's adjusted close on 2018-01-05 is -0.5")
    assert "leave the ticker out, or set env.start later" in text
    assert files(tmp_path / "cache") == []
    assert np.isfinite(load_prices(env_of("AAA", "CCC")).close).all()
    assert np.isfinite(load_prices(env_of(first="2018-01-08")).close).all()


def test_a_damaged_cache_is_fetched_anew(market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path) -> None:
    first = load_prices(env_of(), tmp_path)
    path = next(tmp_path.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match="damaged"):
        again = load_prices(env_of(), tmp_path)
    np.testing.assert_array_equal(again.close, first.close)


def test_without_a_last_day_yesterdays_prices_or_the_newest_kept(
    market: LoopbackYahoo, env_of: EnvOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yahoo, "PATIENCE", 0.5)
    for day, last in (("2020-11-03", "2020-11-02"), ("2020-12-02", "2020-12-01")):
        monkeypatch.setattr(yahoo, "today", lambda day=day: date.fromisoformat(day))
        assert str(load_prices(env_of(last=None), tmp_path).dates[-1]) == last
    monkeypatch.setattr(yahoo, "today", lambda: date(2020, 12, 15))
    market.faults["*"] = ["500!"]
    prices = load_prices(env_of(last=None), tmp_path)
    assert str(prices.dates[-1]) == "2020-12-01"
    assert any("out of reach (HTTP 500); cached prices up to 2020-12-01 are used" in line for line in prices.warnings)
    assert "nothing is cached" in refusal(env_of("AAA", "BBB", last=None), tmp_path)


def test_what_cannot_be_asked_is_refused(market: LoopbackYahoo, env_of: EnvOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yahoo, "today", lambda: date(2020, 12, 15))
    assert refusal(env_of(), None).startswith("env.end=2020-12-31: not over yet; write 2020-12-14 or earlier")
    assert refusal(env_of(first="2020-12-14", last=None), None).startswith("env.start=2020-12-14: not before")
    assert "CASH clashes" in refusal(env_of("AAA", "CASH", last=None), None)
    assert str(load_prices(env_of(last="2020-12-14")).dates[-1]) == "2020-12-14"


def test_the_client_is_left_as_it_was(market: LoopbackYahoo, env_of: EnvOf) -> None:
    import logging
    import warnings

    import yfinance

    before = list(warnings.filters)
    load_prices(env_of())
    assert yfinance.config.debug.hide_exceptions is True
    assert logging.getLogger("yfinance").level <= logging.CRITICAL
    assert list(warnings.filters) == before
