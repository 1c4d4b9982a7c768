"""A loopback Yahoo: the endpoints that the real yfinance client asks, with faults to order; on 127.0.0.1 alone."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data import yahoo
from finflow.schema.sections import Env

FIRST, LAST = "2018-01-02", "2020-12-31"
NEW_YORK = ZoneInfo("America/New_York")


class Stock:
    """Bars as Yahoo keeps them: closes adjusted for splits, `adjusted` for dividends too."""

    def __init__(self, days: pd.DatetimeIndex, close: np.ndarray) -> None:
        self.days, self.close, self.adjusted = days, close, close.copy()
        self.volume = 1_000_000 + 1000 * np.arange(len(days))
        self.events: dict[str, dict[str, Any]] = {}

    def without(self, day: str) -> None:
        keep = self.days != pd.Timestamp(day)
        self.days, self.close, self.adjusted = self.days[keep], self.close[keep], self.adjusted[keep]
        self.volume = self.volume[keep]

    def pay(self, day: str, amount: float) -> None:
        """A dividend: closes before its day are scaled by 1 - amount / close of the day before."""
        at = int(np.flatnonzero(self.days == pd.Timestamp(day))[0])
        self.adjusted[:at] *= 1 - amount / self.close[at - 1]
        stamp = _stamp(self.days[at])
        self.events.setdefault("dividends", {})[str(stamp)] = {"amount": amount, "date": stamp}

    def split(self, day: str, ratio: int) -> None:
        """A split that closes are adjusted for already, as Yahoo's are."""
        stamp = _stamp(pd.Timestamp(day))
        entry = {"date": stamp, "numerator": ratio, "denominator": 1, "splitRatio": f"{ratio}:1"}
        self.events.setdefault("splits", {})[str(stamp)] = entry


class LoopbackYahoo:
    """`faults[ticker]` are served, one a request, before the ticker's bars; `asked` lists (path, query)."""

    def __init__(self) -> None:
        self.stocks: dict[str, Stock] = {}
        self.faults: dict[str, list[str]] = {}
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.cookies: list[str] = []
        self.crumb_busy = False
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def list_stock(self, ticker: str, first: str = FIRST, last: str = LAST, seed: int | None = None) -> Stock:
        days = pd.bdate_range(first, last)
        rng = np.random.default_rng(len(self.stocks) if seed is None else seed)
        self.stocks[ticker] = Stock(days, 50 * np.exp(np.cumsum(rng.normal(0.0003, 0.012, len(days)))))
        return self.stocks[ticker]

    def charts(self) -> list[str]:
        return [path.rsplit("/", 1)[1] for path, _ in self.asked if "/chart/" in path]

    def answer(self, path: str, query: dict[str, list[str]], cookie: str) -> tuple[int, str, dict[str, str]]:
        self.asked.append((path, query))
        if path == "/v1/test/getcrumb":
            self.cookies.append(cookie)
            return (429, "Too Many Requests", {}) if self.crumb_busy else (200, "loopback-crumb", {})
        if "/v8/finance/chart/" in path:
            return self._chart(path.rsplit("/", 1)[1], query)
        if path == "/":
            return 404, "", {"Set-Cookie": "A3=loopback; Path=/"}
        return 404, "<html>not here</html>", {}

    def _chart(self, ticker: str, query: dict[str, list[str]]) -> tuple[int, str, dict[str, str]]:
        fault = self.faults.get(ticker) or self.faults.get("*") or []
        kind = fault[0] if fault and fault[0].endswith("!") else (fault.pop(0) if fault else "")
        faults = {
            "429": (429, "Too Many Requests"),
            "500": (500, "<html>oops</html>"),
            "500 json": (500, json.dumps(_error("Internal Server Error", "try later"))),
            "empty": (200, ""),
            "hang": (200, ""),
            "null": (200, json.dumps({"chart": {"result": None, "error": None}})),
        }
        if kind == "hang!":
            self.released.wait(5)
        if kind.rstrip("!") in faults:
            return *faults[kind.rstrip("!")], {}
        if ticker not in self.stocks:
            return 404, json.dumps(_error("Not Found", "No data found, symbol may be delisted")), {}
        text = json.dumps(self._bars(ticker, query))
        return 200, text[: len(text) // 2] if kind == "half" else text, {}

    def _bars(self, ticker: str, query: dict[str, list[str]]) -> dict[str, Any]:
        stock = self.stocks[ticker]
        stamps = np.array([_stamp(day) for day in stock.days])
        low, high = (
            (int(query[key][0]) for key in ("period1", "period2")) if "period1" in query else (stamps[-1], 2**40)
        )
        wanted = (stamps >= low) & (stamps < high)
        close = stock.close[wanted].tolist()
        meta = {
            "currency": "USD", "symbol": ticker, "exchangeName": "NYQ", "instrumentType": "EQUITY", "priceHint": 2,
            "firstTradeDate": int(stamps[0]), "regularMarketTime": int(stamps[-1]), "gmtoffset": -18000,
            "timezone": "EST", "exchangeTimezoneName": "America/New_York", "dataGranularity": "1d", "range": "",
            "validRanges": ["1d", "5d", "1mo", "max"],
        }  # fmt: skip
        quote = {"open": close, "high": close, "low": close, "close": close, "volume": stock.volume[wanted].tolist()}
        result = {
            "meta": meta,
            "timestamp": stamps[wanted].tolist(),
            "indicators": {"quote": [quote], "adjclose": [{"adjclose": stock.adjusted[wanted].tolist()}]},
        }
        if not wanted.any():
            result = {"meta": meta, "indicators": {"quote": [{}], "adjclose": [{}]}}
        elif stock.events and "period1" in query:
            result["events"] = stock.events
        return {"chart": {"result": [result], "error": None}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                status, text, headers = loopback.answer(
                    parts.path, parse_qs(parts.query), self.headers.get("Cookie", "")
                )
                body = text.encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _stamp(day: Any) -> int:
    return int(datetime.combine(date.fromisoformat(str(day)[:10]), datetime.min.time(), NEW_YORK).timestamp()) + 34200


def _error(code: str, description: str) -> dict[str, Any]:
    return {"chart": {"result": None, "error": {"code": code, "description": description}}}


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackYahoo]:
    """A loopback Yahoo that lists AAA, BBB and CCC, and the client's sessions sent to it; retries are quick."""
    import yfinance

    yfinance.set_tz_cache_location(str(tmp_path / "client"))
    yfinance.data.SingletonMeta._instances.clear()
    loopback = LoopbackYahoo()
    for ticker in ("AAA", "BBB", "CCC"):
        loopback.list_stock(ticker)
    genuine = yahoo._session

    def redirected() -> Any:
        session = genuine()

        class Local(type(session)):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
            def request(self, method: Any, url: str, *args: Any, **options: Any) -> Any:
                parts = urlsplit(url)
                where = f"{loopback.base}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
                return super().request(method, where, *args, **options)

        session.__class__ = Local
        return session

    monkeypatch.setattr(yahoo, "_session", redirected)
    monkeypatch.setattr(yahoo, "PAUSES", (0.01, 0.02, 0.04))
    yield loopback
    loopback.close()


@pytest.fixture(scope="session")
def env_of() -> Callable[..., Env]:
    base = load("pretrain", ["env=dow30"]).env

    def make(*tickers: str, first: str = FIRST, last: str | None = LAST) -> Env:
        return base.model_copy(update={"tickers": list(tickers or ("AAA", "BBB", "CCC")), "start": first, "end": last})

    return make
