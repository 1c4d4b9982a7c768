"""Classical online portfolio selection, by the library universal-portfolios (extra `olps`)."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.market import TRADABLE, Market
from finflow.errors import ConfigError
from finflow.schema import OnlineSelection

_CLASS: dict[OnlineSelection, str] = {
    "eg": "EG",
    "ons": "ONS",
    "anticor": "Anticor",
    "pamr": "PAMR",
    "cwmr": "CWMR",
    "olmar": "OLMAR",
    "rmr": "RMR",
}
"""The library's class of each algorithm. UCRP is 1/N daily; what decides in hindsight (BCRP) is no baseline."""


def require_online_selection(names: Sequence[OnlineSelection]) -> None:
    """Refuse baselines whose library is missing.

    Raises
    ------
    ConfigError
        If `names` is not empty and universal-portfolios cannot be imported.
    """
    if names:
        _library(names[0])


def online_selection_targets(market: Market, name: OnlineSelection) -> NDArray[np.float64]:
    """Target weights [T, n] of one algorithm with the library's parameters, cash last.

    Row t follows from prices up to the close of t. The algorithm starts with the market's first day. A day without a
    price is a day without a return to it; what it gives to names that cannot be traded at t goes to the others in
    proportion, and to cash where there is none.

    Raises
    ------
    ConfigError
        If universal-portfolios cannot be imported.
    """
    levels = np.cumprod(1.0 + np.nan_to_num(market.returns[:, :-1]), axis=0)
    # The library's row t is what is held over day t; one day more gives what the last close decides.
    prices = pd.DataFrame(np.concatenate([levels, levels[-1:]]), columns=list(market.assets[:-1]))
    result = getattr(_library(name), _CLASS[name])().run(prices, log_progress=False)
    weights = np.asarray(result.B, dtype=np.float64)[1:] * (market.status[:, :-1] == TRADABLE)
    total = weights.sum(axis=1, keepdims=True)
    risky = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.concatenate([risky, 1.0 - risky.sum(axis=1, keepdims=True)], axis=1)


def _library(name: str) -> Any:
    try:
        return importlib.import_module("universal.algos")
    except ImportError as error:
        raise ConfigError(
            f"baselines=[{name}]: the library universal-portfolios is missing ({error}); install it with "
            "python -m pip install universal-portfolios six"
        ) from None
