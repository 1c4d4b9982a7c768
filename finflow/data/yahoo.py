"""Prices from Yahoo Finance, downloaded once; the request names the cache file, which holds all of it or nothing.

The yfinance client is asked for the daily bars of one ticker. An answer is bars, or Yahoo's statement that it has none.
Anything else (no network, 429, 500, an empty or cut body) is requested again after growing pauses, until `PATIENCE`
seconds pass without an answer.
"""

import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Collection, Generator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.market import CASH, Dates
from finflow.data.prices import Prices, gaps
from finflow.errors import ConfigError, DataError, some
from finflow.io.files import atomic_write
from finflow.io.weights import Arrays, cached_arrays, read_cached
from finflow.schema.fields import digest
from finflow.schema.sections import Env

PATIENCE = 10.0
"""Seconds without a single answer, pauses included, after which Yahoo counts as out of reach."""
REQUEST_SECONDS = 6.0
"""Longest that one request may take; the client itself would wait 30 s for a cookie alone."""
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before a ticker is requested again."""
_CHART = "/v8/finance/chart/"


class Unreachable(Exception):
    """Yahoo gave no answer within `PATIENCE` seconds; the text describes what happened instead."""


@contextlib.contextmanager
def _yahoo() -> Generator[Any]:
    """The client, which raises errors and prints nothing; its settings are restored afterwards."""
    with warnings.catch_warnings():  # importing it changes the filters
        import yfinance  # pyright: ignore[reportMissingImports]

        warnings.simplefilter("ignore")
        log, hidden = logging.getLogger("yfinance"), yfinance.config.debug.hide_exceptions
        level = log.level
        log.setLevel(logging.CRITICAL + 1)
        yfinance.config.debug.hide_exceptions = False
        try:
            yield yfinance
        finally:
            yfinance.config.debug.hide_exceptions = hidden
            log.setLevel(level)


def _session() -> Any:
    """A session whose requests have a deadline, and which records the last reply of the chart service."""
    from curl_cffi import requests  # pyright: ignore[reportMissingImports]

    class Session(requests.Session[Any]):  # pyright: ignore[reportUntypedBaseClass]
        deadline = time.monotonic() + PATIENCE
        chart: Any = None

        def request(self, method: Any, url: str, *args: Any, **options: Any) -> Any:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            options["timeout"] = min(REQUEST_SECONDS, left)
            response = super().request(method, url, *args, **options)
            if _CHART in url:
                self.chart = response
            return response

    return Session(impersonate="chrome")


@dataclass(frozen=True)
class Request:
    """Everything that shapes the answer; `last` is included."""

    tickers: tuple[str, ...]
    first: date
    last: date
    fields: tuple[str, ...] = ("Close", "Volume")
    adjusted: bool = True
    interval: str = "1d"

    @property
    def hash(self) -> str:
        """Of all but the last day: what the names of its cache files begin with."""
        return f"yahoo-{digest({**asdict(self), 'last': None})}"

    @property
    def name(self) -> str:
        """Stem of the cache file."""
        return f"{self.hash}-{self.last}"


def _bars(client: Any, session: Any, ticker: str, request: Request) -> pd.DataFrame | None:
    """Closes and volumes by the exchange's own day; None where Yahoo says that it has none."""
    reason, after = "no answer in time", request.last + timedelta(days=1)  # the client's end is not included
    for pause in (0.0, *PAUSES):
        if time.monotonic() + pause > session.deadline:
            break
        time.sleep(pause)
        client.data.YfData.cache_get.cache_clear()  # by address, failures included
        session.chart, frame = None, None
        try:
            symbol = client.Ticker(ticker, session=session)
            frame = symbol.history(
                start=str(request.first), end=str(after), interval=request.interval, auto_adjust=True, actions=False
            )
        except Exception as error:  # noqa: BLE001 - the client raises whatever its parsers raise
            if not _says_none(session.chart):
                reason = _reason(error, session.chart)
                continue
        if frame is None or len(frame):
            session.deadline = time.monotonic() + PATIENCE
            return None if frame is None else _checked(ticker, frame)
        reason = "an empty answer"
    raise Unreachable(reason)


def _says_none(chart: Any) -> bool:
    """Whether Yahoo replied that there are no bars: ticker unknown, or none on these days."""
    if chart is None:
        return False
    try:
        found = chart.json()["chart"]
        if chart.status_code in (400, 404) and found["error"]:
            text = f"{found['error']['code']} {found['error']['description']}"
            return "Not Found" in text or "No data found" in text or "Data doesn't exist" in text
        return chart.status_code == 200 and bool(found["result"][0]["meta"]["symbol"])
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _reason(error: Exception, chart: Any) -> str:
    status = None if chart is None else int(chart.status_code)
    if status == 429 or "Too Many Requests" in str(error):
        return "too many requests (HTTP 429)"
    if status is None:
        return f"no connection ({type(error).__name__})"
    return f"HTTP {status}" if status >= 400 else "an answer that is empty or cut short"


def _checked(ticker: str, frame: Any) -> pd.DataFrame:
    days = frame.index.tz_localize(None).normalize()
    bars = frame[["Close", "Volume"]].set_axis(days).astype(np.float64)
    bars = bars[np.isfinite(bars["Close"])]
    if not (bars.index.is_monotonic_increasing and bars.index.is_unique):
        raise DataError(f"env.tickers: {ticker}: Yahoo's days are not in order; leave it out, or use a CSV (env=csv)")
    wrong = bars["Close"][bars["Close"] <= 0]
    if len(wrong):
        raise DataError(
            f"env.tickers: {ticker}: Yahoo's adjusted close on {wrong.index[0].date()} is {wrong.iloc[0]:g}, no price; "
            "leave the ticker out, or set env.start later"
        )
    return bars


MAX_GAPS = 0.05
"""Share of days that one name may have no price on, between its first and its last, before it is refused."""


def load_yahoo(env: Env, cache_dir: Path | None = None) -> Prices:
    """Adjusted closes and volumes of `env.tickers` from `env.start` to `env.end` (null: yesterday).

    Raises
    ------
    ConfigError
        If a ticker is called CASH, or the last day is not over.
    DataError
        If Yahoo is out of reach and nothing is cached, or its answer fails a check.
    StorageError
        If the cache cannot be written.
    """
    request, notes = request_of(env), []
    try:
        arrays = cached_arrays(cache_dir, request.name, lambda: _download(request, cache_dir))
    except Unreachable as error:
        older = _older(cache_dir, request) if env.end is None else None
        if older is None:
            raise DataError(
                f"env.tickers: Yahoo is out of reach ({error}) and nothing is cached for these {len(request.tickers)} "
                f"tickers, {request.first} to {request.last}; try again later, use a cache made elsewhere "
                "(OUTPUT_ROOT/cache), or another source: env=sp500, or env=csv env.path=prices.csv"
            ) from error
        name, arrays = older
        notes.append(f"Yahoo is out of reach ({error}); cached prices up to {name[-10:]} are used")
    return _prices(request, arrays, notes, env.lost_rows if env.calendar == "common" else MAX_GAPS)


def request_of(env: Env) -> Request:
    """The request that `env` describes."""
    assert env.tickers is not None, "the schema asks for it"
    assert env.start is not None, "the schema asks for it"
    yesterday, first = today() - timedelta(days=1), date.fromisoformat(env.start)
    last = yesterday if env.end is None else date.fromisoformat(env.end)
    if last > yesterday:
        raise ConfigError(f"env.end={last}: not over yet; write {yesterday} or earlier, or null for yesterday")
    if first >= last:
        raise ConfigError(f"env.start={first}: not before {last}, the last day; set it earlier")
    for ticker in env.tickers:
        if ticker.upper() == CASH:
            raise ConfigError(f"env.tickers: {ticker} clashes with the portfolio's own cash; leave it out")
    return Request(tuple(env.tickers), first, last)


def today() -> date:
    """Today in UTC: sessions of the day before are over on every exchange."""
    return datetime.now(UTC).date()


def _download(request: Request, cache_dir: Path | None) -> Arrays:
    """Download every ticker, and write a record beside the cache file that follows."""
    count = len(request.tickers)
    print(f"Yahoo: asking for {count} tickers, {request.first} to {request.last}", file=sys.stderr, flush=True)
    found: dict[str, pd.DataFrame] = {}
    with _yahoo() as client:
        session = _session()
        for done, ticker in enumerate(request.tickers):
            try:
                bars = _bars(client, session, ticker, request)
            except Unreachable as error:
                raise Unreachable(f"{error} after {done} of {count} tickers" if done else str(error)) from error
            if bars is not None and len(bars):
                found[ticker] = bars
    if not found:
        raise DataError(
            f"env.tickers: Yahoo has no prices of any of {some(request.tickers)} from {request.first} to "
            f"{request.last}; check the tickers and days"
        )
    table = pd.concat(found, axis=1).sort_index()
    arrays: Arrays = {"dates": table.index.to_numpy().astype("datetime64[D]").astype(np.int64)}
    for name, field in (("close", "Close"), ("volume", "Volume")):
        of_all = table.xs(field, axis=1, level=1).reindex(columns=list(request.tickers))
        arrays[name] = np.ascontiguousarray(of_all.to_numpy(np.float64))
    if cache_dir is not None:
        record = _record(request, found, arrays)
        atomic_write(cache_dir / f"{request.name}.json", (json.dumps(record, indent=2) + "\n").encode())
    return arrays


def _record(request: Request, found: Collection[str], arrays: Arrays) -> dict[str, Any]:
    return {
        "source": "Yahoo Finance",
        "client": f"yfinance {version('yfinance')}",
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "tickers": list(request.tickers),
        "without_prices": [ticker for ticker in request.tickers if ticker not in found],
        "asked": [str(request.first), str(request.last)],
        "received": [str(day) for day in arrays["dates"][[0, -1]].astype("datetime64[D]")],
        "days": len(arrays["dates"]),
        "fields": list(request.fields),
        "adjusted": request.adjusted,
        "interval": request.interval,
    }


def _older(cache_dir: Path | None, request: Request) -> tuple[str, Arrays] | None:
    """Name and arrays of the newest whole cache file of the same request up to an earlier day."""
    paths = [] if cache_dir is None else sorted(cache_dir.glob(f"{request.hash}-*.safetensors"), reverse=True)
    for path in paths:
        arrays = read_cached(path)
        if arrays is not None:
            return path.stem, arrays
    return None


def _prices(request: Request, arrays: Arrays, notes: list[str], allowed: float) -> Prices:
    """Prices on the days on which every name that has begun and not ended has one."""
    dates, close = arrays["dates"].astype("datetime64[D]"), arrays["close"]
    priced, missing = np.isfinite(close), gaps(close)
    notes += _gap_notes(request, dates, missing, (priced | missing).sum(axis=0), allowed)
    notes += [
        f"{ticker}: Yahoo has no prices of it from {request.first} to {request.last}; untradable throughout "
        "(misspelt, or delisted before?)"
        for ticker, known in zip(request.tickers, priced.sum(axis=0).tolist(), strict=True)
        if not known
    ]
    notes.append(
        "the tickers were chosen with hindsight, names that failed since are missing: every strategy here is "
        "flattered by that, 1/N too"
    )
    kept = ~missing.any(axis=1)
    return Prices(dates[kept], request.tickers, close[kept], arrays["volume"][kept], warnings=tuple(notes))


def _gap_notes(
    request: Request, dates: Dates, blank: NDArray[np.bool_], lived: NDArray[np.int64], allowed: float
) -> list[str]:
    """One line per name with days left out for it; refused where they are many."""
    lines: list[str] = []
    for column in np.flatnonzero(blank.any(axis=0)):
        ticker, missing = request.tickers[column], dates[blank[:, column]]
        if len(missing) > allowed * lived[column]:
            share = int(np.ceil(100 * len(missing) / lived[column])) / 100
            raise DataError(
                f"env.tickers: {ticker}: no price on {len(missing)} of its {lived[column]} days, {missing[0]} the "
                "first (another exchange's holidays?); leave it out, choose names of one exchange, or add "
                f"env.calendar=common env.lost_rows={share}, which leaves those days out for all"
            )
        days = f"{len(missing)} days ({some(list(missing))})"
        lines.append(f"{ticker}: no price on {days}; left out for all names, nothing is filled")
    return lines
