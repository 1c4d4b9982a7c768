"""The market as plain arrays; row t holds values that are known at the close of day t."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import BUSINESS, Calendar

CASH = "CASH"
REGIMES = ("stable", "normal", "volatile", "crisis")
NO_LABEL = -1
BLOCKS = 4
"""Blocks of train days that confidence is cross-fitted on."""

# Trading status of a name at the close of t, from prices up to t.
ABSENT, FROZEN, TRADABLE = 0, 1, 2


@dataclass(frozen=True)
class Market:
    """One market, causal throughout: row t of every array is a function of prices up to t.

    T days, d risky assets, n = d + 1 assets with cash last, F features, M market features.

    Attributes
    ----------
    dates : [T] datetime64[D], strictly increasing.
    assets : n names, the last is `CASH`.
    close : [T, d] float64, NaN where there is no price (before listing, after delisting).
    returns : [T, n] float64, simple return from close t-1 to close t; row 0 is 0. 0 where either price is
        missing, except the day after the last price of a delisted name, which holds `delist_return`.
        The cash column is the cash yield earned from t-1 to t.
    status : [T, n] int8. ABSENT (no price: a held position is closed), FROZEN (a price, but stale or too
        young: neither bought nor sold) or TRADABLE. Cash is always TRADABLE.
    features : [T, d, F] float32, unscaled, 0 where not yet available.
    market_features : [T, M] float32, unscaled.
    regime : [T] int8, index into `REGIMES`, `NO_LABEL` before the first label.
    decision : [T] bool, days at whose close the portfolio may be changed.
    benchmark : [T] float64, simple return of the benchmark from t-1 to t (1/N over the names tradable at
        t-1, gross, or the user's own).
    index : [T] float64, simple return of 1/N over live names that are not stale, by which regimes are labelled; NaN
        before its first. Unlike the benchmark it needs no `min_history`.
    fingerprint : hash of the data and settings that shape the arrays.
    warnings : one line each, for the console and the report.
    calendar : of `dates`; windows of time are turned into rows by it, figures annualised.
    rebalance : "daily", "weekly" or "monthly": what `decision` follows (`env.rebalance`).
    """

    dates: NDArray[np.datetime64]
    assets: tuple[str, ...]
    close: NDArray[np.float64]
    returns: NDArray[np.float64]
    status: NDArray[np.int8]
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    market_features: NDArray[np.float32]
    market_feature_names: tuple[str, ...]
    regime: NDArray[np.int8]
    decision: NDArray[np.bool_]
    benchmark: NDArray[np.float64]
    index: NDArray[np.float64]
    fingerprint: str
    warnings: tuple[str, ...]
    calendar: Calendar = BUSINESS
    rebalance: str = "daily"

    @property
    def n(self) -> int:
        """Number of assets, cash included."""
        return len(self.assets)


@dataclass(frozen=True)
class Window:
    """Return rows `start <= t < stop`: the decision behind the return of row t is taken at row t - 1."""

    start: int
    stop: int

    @property
    def decisions(self) -> range:
        """Rows at whose close a decision of this window is taken."""
        return range(self.start - 1, self.stop - 1)

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Fold:
    """One anchored fold: `train | validation | test`, with purged rows between them."""

    name: str
    train: Window
    validation: Window
    test: Window

    @property
    def entries(self) -> tuple[int, int, int]:
        """Row of the first decision of each window."""
        return self.train.start - 1, self.validation.start - 1, self.test.start - 1
