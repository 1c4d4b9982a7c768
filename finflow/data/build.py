"""From a source of prices, one function for each value of `env.source`, to a `Market`: features, regimes, benchmark."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.csv_source import load_csv
from finflow.data.features import (
    FEATURES,
    SIGNAL_PREFIX,
    Array,
    History,
    Signals,
    asset_features,
    feature_names,
    features_of_plugins,
    rolling_mean,
)
from finflow.data.market import CASH, TRADABLE, TRADING_YEAR, Calendar, Market, calendar_of, check_day, decision_days
from finflow.data.market_features import MARKET_FEATURES, label_regimes, market_feature_names, market_features
from finflow.data.prices import Prices, Trading, price_warnings, simple_returns, trading
from finflow.data.series import (
    BENCHMARK,
    CASH_YIELD,
    EQUAL_WEIGHT,
    add_signals,
    cash_returns,
    cash_warnings,
    equal_weight,
    own_benchmark,
    read_series,
    series_files,
)
from finflow.data.snapshot import frozen
from finflow.data.synthetic import load_synthetic
from finflow.data.yahoo import load_yahoo
from finflow.errors import ConfigError
from finflow.io.weights import Arrays, cached_arrays, content_hash
from finflow.plugins import chosen
from finflow.schema import part_of
from finflow.schema.fields import Role
from finflow.schema.sections import Env


def load_sp500(env: Env) -> Prices:
    """Adjusted closes of 20 stocks of the S&P 500, 1990-01-02 to 2022-12-28, bundled with skfolio.

    The names are survivors chosen with hindsight, and prices before 1995 are rounded to $.001.
    """
    # The file is read directly: importing skfolio takes longer than importing FinFlow.
    file = distribution("skfolio").locate_file("skfolio/datasets/data/sp500_dataset.csv.gz")
    table = pd.read_csv(str(file), index_col=0)
    dates = table.index.to_numpy().astype("datetime64[D]")
    return Prices(dates, tuple(str(c) for c in table.columns), np.ascontiguousarray(table.to_numpy(np.float64)))


Source = Callable[[Env, Path | None], Prices]
"""Settings, and the folder where a download may be kept (None: nowhere) -> prices, all names and days there are."""

SOURCES: dict[str, Source] = {
    "sp500": lambda env, _: load_sp500(env),
    "yahoo": load_yahoo,
    "csv": lambda env, _: load_csv(env),
    "synthetic": lambda env, _: load_synthetic(env),
}


def load_prices(env: Env, cache_dir: Path | None = None) -> Prices:
    """Read the prices that `env` names, its tickers up to its last day, with the user's signals and files.

    Parameters
    ----------
    cache_dir : folder where downloads are kept between runs.

    Raises
    ------
    ConfigError
        If there is no such source, or a key that the source needs is missing.
    DataError
        If the prices fail a check or cannot be read.
    StorageError
        If a snapshot is damaged, or it or the cache cannot be written.
    """
    if env.snapshot is not None:
        return frozen(env, lambda: _load(env, cache_dir))
    return _load(env, cache_dir)


def _load(env: Env, cache_dir: Path | None) -> Prices:
    source: Source = chosen("env.source", env.source, SOURCES, "sources")
    prices = source(env, cache_dir)
    if env.tickers is not None:
        unknown = [ticker for ticker in env.tickers if ticker not in prices.tickers]
        if unknown:
            known = ", ".join(prices.tickers)
            raise ConfigError(f"env.tickers: {unknown[0]} is not in the prices; choose among {known}")
        prices = prices.of(env.tickers)
    if env.end is not None:
        prices = prices.until(_last_row(prices, env.end))
    if env.signals is not None:
        prices = add_signals(prices, env)
    return replace(prices, files=read_series(env))


def _last_row(prices: Prices, end: str) -> int:
    rows = int(np.searchsorted(prices.dates, np.datetime64(check_day("env.end", end), "D"), side="right"))
    if rows == 0:
        raise ConfigError(f"env.end={end}: the prices begin on {prices.dates[0]}; set it later")
    return rows


FEATURE_VERSION = 1
"""Raise it whenever a formula of features or labels changes, so that weights trained on the old ones are refused."""


def build_market(env: Env, cache_dir: Path | None = None) -> Market:
    """The market that `env` describes.

    Parameters
    ----------
    cache_dir : folder where downloads, features and labels are kept between runs; None computes them anew.

    Raises
    ------
    ConfigError, DataError
        If a setting or the data cannot be used.
    """
    return market_of(load_prices(env, cache_dir), env, cache_dir)


def market_of(prices: Prices, env: Env, cache_dir: Path | None = None) -> Market:
    """The market of `prices` under the rules of `env`."""
    calendar = calendar_of(prices.dates, env.periods_per_year)
    state = trading(prices.close, env.stale_run, calendar.rows(env.min_history))
    files = prices.files or read_series(env)
    cash = cash_returns(env.cash_yield, prices.dates, files.get(CASH_YIELD), calendar)
    risky = simple_returns(prices.close, env.delist_return)
    if env.benchmark == EQUAL_WEIGHT:
        benchmark = equal_weight(risky, state.status == TRADABLE, cash)
    else:
        benchmark = own_benchmark(Path(env.benchmark), prices.dates, files.get(BENCHMARK))
    index = _index(risky, state)
    history = _history(prices, state, index, calendar)
    others = features_of_plugins(history, env.features)
    fingerprint = _fingerprint(prices, env, files, calendar, others)
    regime, regime_warnings = label_regimes(index, env.regimes, calendar)
    arrays = cached_arrays(
        cache_dir,
        f"features-{fingerprint}-{_code_hash()}",
        lambda: _features(history, {**others, **prices.signals}, regime),
    )
    always = np.full((len(prices.dates), 1), TRADABLE, dtype=np.int8)
    return Market(
        dates=prices.dates,
        assets=(*prices.tickers, CASH),
        close=prices.close,
        returns=np.concatenate([risky, cash[:, None]], axis=1),
        status=np.concatenate([state.status, always], axis=1),
        features=arrays["features"],
        feature_names=feature_names(prices.signals, others),
        market_features=arrays["market_features"],
        market_feature_names=market_feature_names(),
        regime=regime,
        decision=decision_days(prices.dates, env.rebalance, calendar),
        benchmark=benchmark,
        index=index,
        fingerprint=fingerprint,
        warnings=(
            *prices.warnings,
            *price_warnings(prices, env, calendar),
            *regime_warnings,
            *cash_warnings(cash, calendar),
        ),
        calendar=calendar,
        rebalance=env.rebalance,
    )


def prefix_fingerprint(source: Market | Prices, until: date) -> str:
    """Hash of the dates, tickers and closes up to `until`: unchanged where a file has only grown since."""
    tickers = source.assets[:-1] if isinstance(source, Market) else source.tickers
    rows = int(np.searchsorted(source.dates, np.datetime64(until, "D"), side="right"))
    return _hash(tickers, {"dates": source.dates[:rows].astype(np.int64), "close": source.close[:rows]})


def _index(risky: NDArray[np.float64], state: Trading) -> NDArray[np.float64]:
    """See `Market.index`."""
    held = state.live & ~state.stale
    index = equal_weight(risky, held, np.zeros(len(risky)))
    begun = np.maximum.accumulate(held.any(axis=1))
    index[0] = np.nan
    index[1:][~begun[:-1]] = np.nan
    return index


def _history(prices: Prices, state: Trading, index: NDArray[np.float64], calendar: Calendar) -> History:
    known = state.live.copy()
    known[:-1] |= state.live[1:] & state.present[:-1]  # the close before a first move is genuine too
    return History(
        close=np.where(known, prices.close, np.nan),
        live=state.live,
        eligible=state.live & ~state.stale,
        index=index,
        volume=prices.volume,
        calendar=calendar,
    )


def _features(history: History, given: Signals, regime: NDArray[np.int8]) -> Arrays:
    return {"features": asset_features(history, given), "market_features": market_features(history, regime)}


def _fingerprint(
    prices: Prices, env: Env, files: Mapping[str, bytes], calendar: Calendar, others: Mapping[str, Array]
) -> str:
    """Hash of everything that shapes the arrays of a market; features of plugins count by their values."""
    market = part_of(env.model_dump(), {Role.MARKET}, "env")
    benchmark, cash_yield = market.pop("benchmark"), market.pop("cash_yield")  # their files are among the arrays
    del market["features"]
    rules = [rule for rule in market.values() if not isinstance(rule, dict)] + [benchmark == EQUAL_WEIGHT]
    rules += [rule for section in market.values() if isinstance(section, dict) for rule in section.values()]
    if not isinstance(cash_yield, str):
        rules.append(cash_yield)
    if calendar.year != TRADING_YEAR:  # business days keep the hash of earlier versions
        rules.append(f"{calendar.year} rows a year")
    shape = [FEATURE_VERSION, *FEATURES, *MARKET_FEATURES, *rules]
    arrays: Arrays = {"dates": prices.dates.astype(np.int64), "close": prices.close}
    if prices.volume is not None:
        arrays["volume"] = prices.volume
    arrays |= {f"{SIGNAL_PREFIX}{name}": values for name, values in prices.signals.items()}
    arrays |= {f"feature:{name}": values for name, values in others.items()}
    for number, key in enumerate(series_files(env)):
        arrays[f"file:{number}"] = np.frombuffer(files[key], dtype=np.uint8)
    return _hash((*prices.tickers, json.dumps(shape)), arrays)


def _code_hash() -> str:
    """Hash of the code that computes cached arrays, so that an edited feature is never read from an old file."""
    functions = (*FEATURES.values(), *MARKET_FEATURES.values(), label_regimes, trading, equal_weight, rolling_mean)
    files = {getattr(sys.modules[f.__module__], "__file__", None) for f in (*functions, market_of)}
    digest = hashlib.sha256(f"numpy {np.__version__} pandas {pd.__version__}".encode())
    for file in sorted(f for f in files if f is not None):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:8]


def _hash(words: tuple[str, ...], arrays: Arrays) -> str:
    text = json.dumps([words, content_hash(arrays)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
