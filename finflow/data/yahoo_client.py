"""Daily bars of one ticker from the yfinance client, with retries and a time limit.

An answer is bars, or Yahoo's statement that it has none. Anything else (no network, 429, 500, an empty or cut body) is
requested again after growing pauses, until `PATIENCE` seconds pass without an answer.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.errors import DataError

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
