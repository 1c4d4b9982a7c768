"""Builds a `Market` from prices: features, regime labels, masks and benchmark."""

import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.benchmark import (
    BENCHMARK,
    CASH_YIELD,
    EQUAL_WEIGHT,
    cash_returns,
    cash_warnings,
    equal_weight,
    own_benchmark,
    read_series,
    series_files,
)
from finflow.data.calendar import TRADING_YEAR, Calendar, calendar_of, decision_days
from finflow.data.features import FEATURES, SIGNAL_PREFIX, asset_features, feature_names, features_of_plugins
from finflow.data.history import Array, History, Signals, rolling_mean
from finflow.data.market import CASH, TRADABLE, Market
from finflow.data.market_features import MARKET_FEATURES, market_feature_names, market_features
from finflow.data.price_warnings import price_warnings
from finflow.data.prices import Prices
from finflow.data.regimes import label_regimes
from finflow.data.sources import load_prices
from finflow.data.status import Trading, simple_returns, trading
from finflow.io.weights import Arrays, cached_arrays, content_hash
from finflow.schema import part_of
from finflow.schema.env import Env
from finflow.schema.roles import Role

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
