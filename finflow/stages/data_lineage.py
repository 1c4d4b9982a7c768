"""Comparison of data with those of training: the same, grown since, re-adjusted, or with another past.

A dividend or split rescales all earlier closes of its name by one factor. Returns stay as they were, and so does the
past. Closes are compared with those of training, which are kept in the cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.data.build import prefix_fingerprint
from finflow.data.features import SIGNAL_PREFIX
from finflow.data.market import Market
from finflow.io.weights import Arrays, cached_arrays, content_hash, read_cached

PAST = "past"
ROUNDING = 1e-5
"""A rescaled close differs by so much, relatively, from the close times the factor, beside its printed decimals."""
SHOWN = 3
"""Re-adjusted names that are printed."""
_CAUSAL = ("returns", "status", "features", "market_features", "regime", "benchmark")
"""Arrays whose rows depend on what comes before them alone; they also hold volume, signals, rates and benchmark."""


@dataclass(frozen=True)
class Past:
    """Data compared with those of training.

    Attributes
    ----------
    new_days : days after the last that training knew; 0 where nothing was added.
    changed : the data that differ, with dates; None where the past is the same.
    readjusted : names whose earlier closes were all rescaled by one factor, in words; None where there are none.
    """

    new_days: int
    changed: str | None
    readjusted: str | None = None


def past_facts(market: Market, cache: Path) -> dict[str, str]:
    """A run's record of its data: first and last day, and hashes that do not change when days are added.

    Parameters
    ----------
    cache : where the closes themselves are kept.
    """
    first, last = str(market.dates[0]), str(market.dates[-1])
    cached_arrays(cache, _kept(market.fingerprint), lambda: _inputs(market, len(market.dates)))
    return {"first": first, "last": last, "prices": _prices(market, last), "arrays": _arrays(market, last)}


def compare_past(record: Mapping[str, Any], market: Market, cache: Path) -> Past:
    """Compare `market` with what `record`, a run's `run.json`, says of the data that it was trained on."""
    then = str(record.get("data_fingerprint"))
    if market.fingerprint == then:
        return Past(0, None)
    noted = record.get(PAST)
    if not isinstance(noted, dict):
        return Past(0, f"data (fingerprint {then}, now {market.fingerprint})")
    first, last = str(noted["first"]), str(noted["last"])
    new_days = int((market.dates > np.datetime64(last, "D")).sum())
    if _prices(market, last) != noted["prices"]:
        path = cache / f"{_kept(then)}.safetensors"
        known = read_cached(path) if path.exists() else None
        found = None if known is None else _readjusted(known, _inputs(market, _rows(market, last)), market.assets)
        return Past(new_days, None if found else f"prices from {first} to {last}", found)
    if _arrays(market, last) != noted["arrays"]:
        return Past(new_days, f"volume, signals, cash yield, benchmark or features from {first} to {last}")
    return Past(new_days, None)


def _kept(fingerprint: str) -> str:
    return f"closes-{fingerprint}"


def _inputs(market: Market, rows: int) -> Arrays:
    """Closes of the first `rows` days, and what else shapes the days but volume, which a split rescales, too."""
    signals = [name.startswith(SIGNAL_PREFIX) for name in market.feature_names]
    arrays = {
        "dates": market.dates.astype(np.int64), "close": market.close, "cash": market.returns[:, -1],
        "benchmark": market.benchmark, "signals": market.features[..., np.array(signals, dtype=bool)],
    }  # fmt: skip
    return {name: array[:rows] for name, array in arrays.items()}


def _readjusted(then: Arrays, now: Arrays, names: Sequence[str]) -> str | None:
    """Names whose closes are all those of `then` times one factor, with it; None where anything else differs."""
    if any(then[name].shape != array.shape for name, array in now.items()):
        return None
    if not np.array_equal(np.isnan(then["close"]), np.isnan(now["close"])):
        return None
    factor = np.nansum(now["close"], axis=0) / np.maximum(np.nansum(then["close"], axis=0), np.finfo(float).tiny)
    rounding = _half_unit(now["close"]) + factor * _half_unit(then["close"])
    allowed = 1.01 * rounding + ROUNDING * now["close"]
    if (np.abs(now["close"] - factor * then["close"]) > allowed).any():
        return None
    # 1/N, where that is the benchmark, moves with the closes' rounding.
    loose = {"benchmark": 4.0 * float(np.nanmax(allowed / now["close"]))}
    others = [name for name in now if name != "close"]
    if not all(np.allclose(then[name], now[name], 1e-5, loose.get(name, 1e-8), equal_nan=True) for name in others):
        return None
    factors = zip(names, factor.tolist(), strict=False)  # cash, the last name, has no close
    moved = [f"{name} by {each:.4g}" for name, each in factors if each and abs(each - 1.0) > ROUNDING]
    rest = len(moved) - SHOWN
    return ", ".join([*moved[:SHOWN], *([f"{rest} more"] if rest > 0 else [])]) or None


def _half_unit(close: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of the last decimal that each name's closes are printed with, [n]; 0 from seven decimals on."""
    found = np.zeros(close.shape[1])
    for decimals in reversed(range(7)):
        whole = (np.isnan(close) | (np.abs(np.round(close, decimals) - close) <= 1e-9)).all(axis=0)
        found[whole] = 0.5 * 10.0**-decimals
    return found


def _rows(market: Market, last: str) -> int:
    return int(np.searchsorted(market.dates, np.datetime64(last, "D"), side="right"))


def _prices(market: Market, last: str) -> str:
    return prefix_fingerprint(market, date.fromisoformat(last))


def _arrays(market: Market, last: str) -> str:
    return content_hash({name: getattr(market, name)[: _rows(market, last)] for name in _CAUSAL})[:16]
