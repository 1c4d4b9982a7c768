"""Whether a run's data are still those of training: the same, grown since, or with another past."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from finflow.data.build import prefix_fingerprint
from finflow.data.cache import content_hash
from finflow.data.market import Market

PAST = "past"
_CAUSAL = ("returns", "status", "features", "market_features", "regime", "benchmark")
"""Arrays whose rows depend on what comes before them alone; they also hold volume, signals, rates and benchmark."""


@dataclass(frozen=True)
class Past:
    """Data compared with those of training.

    Attributes
    ----------
    new_days : days after the last that training knew; 0 where nothing was added.
    changed : what is no longer as it was, with its dates; None where the past is the same.
    """

    new_days: int
    changed: str | None


def past_facts(market: Market) -> dict[str, str]:
    """What a run notes of its data: first and last day, and hashes that stay when later days are added."""
    first, last = str(market.dates[0]), str(market.dates[-1])
    return {"first": first, "last": last, "prices": _prices(market, last), "arrays": _arrays(market, last)}


def compare_past(record: Mapping[str, Any], market: Market) -> Past:
    """Compare `market` with what `record`, a run's `run.json`, says of the data that it was trained on."""
    then = record.get("data_fingerprint")
    if market.fingerprint == then:
        return Past(0, None)
    noted = record.get(PAST)
    if not isinstance(noted, dict):
        return Past(0, f"data (fingerprint {then}, now {market.fingerprint})")
    first, last = str(noted["first"]), str(noted["last"])
    new_days = int((market.dates > np.datetime64(last, "D")).sum())
    if _prices(market, last) != noted["prices"]:
        return Past(new_days, f"prices from {first} to {last}")
    if _arrays(market, last) != noted["arrays"]:
        return Past(new_days, f"volume, signals, cash yield, benchmark or features from {first} to {last}")
    return Past(new_days, None)


def _prices(market: Market, last: str) -> str:
    return prefix_fingerprint(market, date.fromisoformat(last))


def _arrays(market: Market, last: str) -> str:
    rows = int(np.searchsorted(market.dates, np.datetime64(last, "D"), side="right"))
    return content_hash({name: getattr(market, name)[:rows] for name in _CAUSAL})[:16]
