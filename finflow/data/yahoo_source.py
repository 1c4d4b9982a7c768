"""Prices from Yahoo Finance, downloaded once; the request names the cache file, which holds all of it or nothing."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import check_day
from finflow.data.market import CASH
from finflow.data.prices import Prices
from finflow.data.yahoo_client import Bars, Unreachable, client_version, yahoo
from finflow.errors import ConfigError, DataError
from finflow.io.files import atomic_write
from finflow.io.weights import Arrays, cached_arrays, read_cached
from finflow.schema.env import Env
from finflow.schema.fields import digest

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
