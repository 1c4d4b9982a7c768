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
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import CASH, check_day
from finflow.data.prices import Prices
from finflow.errors import ConfigError, DataError
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


@dataclass(frozen=True)
class Bars:
    """Days of one ticker.

    Attributes
    ----------
    dates : [T] datetime64[D] on the exchange's own calendar, strictly increasing.
    close : [T] closes adjusted for splits and dividends.
    volume : [T] shares, adjusted for splits; NaN where there is none.
    """

    dates: NDArray[np.datetime64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]


class Unreachable(Exception):
    """Yahoo gave no answer within `PATIENCE` seconds; the text describes what happened instead."""


class Yahoo:
    """The yfinance client over a session of its own; used within `yahoo()`."""

    def __init__(self, client: Any, session: Any) -> None:
        self._client, self._session = client, session
        self._session.answered()

    def bars(self, ticker: str, first: date, last: date) -> Bars | None:
        """Bars from `first` to `last`, both included; None where Yahoo says that it has none.

        Raises
        ------
        Unreachable
            If there is no answer.
        DataError
            If the answer fails a check.
        """
        reason = ""
        for pause in (0.0, *PAUSES):
            if time.monotonic() + pause > self._session.deadline:
                break
            time.sleep(pause)
            try:
                frame = self._history(ticker, first, last)
            except Exception as error:  # noqa: BLE001 - the client raises whatever its parsers raise
                if self._session.has_none():
                    self._session.answered()
                    return None
                reason = _reason(error, self._session.status)
                continue
            if len(frame) == 0:
                reason = "an empty answer"
                continue
            self._session.answered()
            return _bars(ticker, frame)
        raise Unreachable(reason or "no answer in time")

    def _history(self, ticker: str, first: date, last: date) -> Any:
        # The client caches responses by address, failures included.
        self._client.data.YfData.cache_get.cache_clear()
        self._session.forget()
        symbol = self._client.Ticker(ticker, session=self._session)
        after = str(last + timedelta(days=1))  # the client's end is not included
        return symbol.history(start=str(first), end=after, interval="1d", auto_adjust=True, actions=False)


@contextlib.contextmanager
def yahoo() -> Generator[Yahoo]:
    """A client that raises errors and prints nothing; its settings are restored afterwards."""
    with warnings.catch_warnings():  # importing it changes the filters
        import yfinance  # pyright: ignore[reportMissingImports]

        warnings.simplefilter("ignore")
        log, hidden = logging.getLogger("yfinance"), yfinance.config.debug.hide_exceptions
        level = log.level
        log.setLevel(logging.CRITICAL + 1)
        yfinance.config.debug.hide_exceptions = False
        try:
            yield Yahoo(yfinance, _session())
        finally:
            yfinance.config.debug.hide_exceptions = hidden
            log.setLevel(level)


def client_version() -> str:
    """Name and version of the client, for the record."""
    from importlib.metadata import version

    return f"yfinance {version('yfinance')}"


def _session() -> Any:
    """A session whose requests have a deadline, and which records the last reply of the chart service."""
    from curl_cffi import requests  # pyright: ignore[reportMissingImports]

    class Session(requests.Session[Any]):  # pyright: ignore[reportUntypedBaseClass]
        deadline = 0.0
        _chart: Any = None

        def request(self, method: Any, url: str, *args: Any, **options: Any) -> Any:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            options["timeout"] = min(REQUEST_SECONDS, left)
            response = super().request(method, url, *args, **options)
            if _CHART in url:
                self._chart = response
            return response

        def answered(self) -> None:
            """Start the clock again."""
            self.deadline = time.monotonic() + PATIENCE

        def forget(self) -> None:
            self._chart = None

        @property
        def status(self) -> int | None:
            return None if self._chart is None else int(self._chart.status_code)

        def has_none(self) -> bool:
            """Whether Yahoo replied that there are no bars: ticker unknown, or none on these days."""
            return self._chart is not None and _says_none(self._chart)

    return Session(impersonate="chrome")


def _says_none(response: Any) -> bool:
    try:
        chart = response.json()["chart"]
        if response.status_code in (400, 404) and chart["error"]:
            text = f"{chart['error']['code']} {chart['error']['description']}"
            return "Not Found" in text or "No data found" in text or "Data doesn't exist" in text
        return response.status_code == 200 and bool(chart["result"][0]["meta"]["symbol"])
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _reason(error: Exception, status: int | None) -> str:
    if status == 429 or "Too Many Requests" in str(error):
        return "too many requests (HTTP 429)"
    if status is not None and status >= 400:
        return f"HTTP {status}"
    if status is not None:
        return "an answer that is empty or cut short"
    return f"no connection ({type(error).__name__})"


def _bars(ticker: str, frame: Any) -> Bars:
    """Bars of the client's table, checked."""
    dates = frame.index.tz_localize(None).to_numpy().astype("datetime64[D]")
    close, volume = (frame[name].to_numpy(dtype=np.float64) for name in ("Close", "Volume"))
    priced = np.isfinite(close)
    bars = Bars(dates[priced], close[priced], volume[priced])
    if len(bars.dates) and (np.diff(bars.dates.astype(np.int64)) <= 0).any():
        raise DataError(f"env.tickers: {ticker}: Yahoo's days are not in order; leave it out, or use a CSV (env=csv)")
    wrong = np.flatnonzero(bars.close <= 0)
    if len(wrong):
        day, value = bars.dates[wrong[0]], bars.close[wrong[0]]
        raise DataError(
            f"env.tickers: {ticker}: Yahoo's adjusted close on {day} is {value:g}, no price; leave the ticker out, or "
            "set env.start later"
        )
    return bars


SOURCE = "yahoo"
MAX_GAPS = 0.05
"""Share of days that one name may have no price on, between its first and its last, before it is refused."""
_SHOWN = 3


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
    def name(self) -> str:
        """Stem of the cache file: a hash of all but the last day, which stands behind it."""
        return f"{self._hash}-{self.last}"

    @property
    def earlier(self) -> str:
        """Pattern of the same request up to any day."""
        return f"{self._hash}-*.safetensors"

    @property
    def _hash(self) -> str:
        return f"{SOURCE}-{digest({**asdict(self), 'last': None})}"


def load_yahoo(env: Env, cache_dir: Path | None = None) -> Prices:
    """Adjusted closes and volumes of `env.tickers` from `env.start` to `env.end` (null: yesterday).

    Raises
    ------
    ConfigError
        If a ticker or a day is not valid.
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
    yesterday = today() - timedelta(days=1)
    first = check_day("env.start", env.start)
    last = yesterday if env.end is None else check_day("env.end", env.end)
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
    found: dict[str, Bars] = {}
    with yahoo() as client:
        for done, ticker in enumerate(request.tickers):
            try:
                bars = client.bars(ticker, request.first, request.last)
            except Unreachable as error:
                raise Unreachable(f"{error} after {done} of {count} tickers" if done else str(error)) from error
            if bars is not None and len(bars.dates):
                found[ticker] = bars
    if not found:
        raise DataError(
            f"env.tickers: Yahoo has no prices of any of {', '.join(request.tickers[:_SHOWN])}"
            f"{', ...' if count > _SHOWN else ''} from {request.first} to {request.last}; check the tickers and days"
        )
    arrays = _table(request.tickers, found)
    if cache_dir is not None:
        record = _record(request, found, arrays)
        atomic_write(cache_dir / f"{request.name}.json", (json.dumps(record, indent=2) + "\n").encode())
    return arrays


def _table(tickers: tuple[str, ...], found: Mapping[str, Bars]) -> Arrays:
    """Dates [T] of any name as days since 1970, close and volume [T, d]; NaN where a name has no price."""
    dates = np.unique(np.concatenate([bars.dates for bars in found.values()]))
    close, volume = (np.full((len(dates), len(tickers)), np.nan) for _ in range(2))
    for column, ticker in enumerate(tickers):
        if ticker in found:
            rows = np.searchsorted(dates, found[ticker].dates)
            close[rows, column], volume[rows, column] = found[ticker].close, found[ticker].volume
    return {"dates": dates.astype(np.int64), "close": close, "volume": volume}


def _record(request: Request, found: Mapping[str, Bars], arrays: Arrays) -> dict[str, Any]:
    return {
        "source": "Yahoo Finance",
        "client": client_version(),
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
    paths = [] if cache_dir is None else sorted(cache_dir.glob(request.earlier), reverse=True)
    for path in paths:
        arrays = read_cached(path)
        if arrays is not None:
            return path.stem, arrays
    return None


def _prices(request: Request, arrays: Arrays, notes: list[str], allowed: float) -> Prices:
    """Prices on the days on which every name that has begun and not ended has one."""
    dates, close = arrays["dates"].astype("datetime64[D]"), arrays["close"]
    priced = np.isfinite(close)
    begun, unended = np.maximum.accumulate(priced), np.maximum.accumulate(priced[::-1])[::-1]
    gaps = begun & unended & ~priced
    notes += _gap_notes(request, dates, gaps, (begun & unended).sum(axis=0), allowed)
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
    kept = ~gaps.any(axis=1)
    return Prices(dates[kept], request.tickers, close[kept], arrays["volume"][kept], warnings=tuple(notes))


def _gap_notes(
    request: Request, dates: NDArray[np.datetime64], gaps: NDArray[np.bool_], lived: NDArray[np.int64], allowed: float
) -> list[str]:
    """One line per name with days left out for it; refused where they are many."""
    lines: list[str] = []
    for column in np.flatnonzero(gaps.any(axis=0)):
        ticker, missing = request.tickers[column], dates[gaps[:, column]]
        if len(missing) > allowed * lived[column]:
            share = int(np.ceil(100 * len(missing) / lived[column])) / 100
            raise DataError(
                f"env.tickers: {ticker}: no price on {len(missing)} of its {lived[column]} days, {missing[0]} the "
                "first (another exchange's holidays?); leave it out, choose names of one exchange, or add "
                f"env.calendar=common env.lost_rows={share}, which leaves those days out for all"
            )
        shown = ", ".join(str(day) for day in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        lines.append(f"{ticker}: no price on {len(missing)} days ({shown}); left out for all names, nothing is filled")
    return lines
