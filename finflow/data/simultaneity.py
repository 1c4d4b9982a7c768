"""A test for closes that are not simultaneous, which make returns look predictable although nobody can trade on them.

A signal that a portfolio could earn from fades over days. One that is strong for the next row and gone a row later
comes from closes taken at different hours: when the later close is known, the earlier market has already moved.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data.market import TRADABLE, Market, Window

STRONG = 0.05
"""A mean rank correlation with the next row that prices of one exchange do not reach."""
SURE = 5.0
"""Its least distance from 0 in standard errors."""
GONE = 1 / 3
"""The largest share of it that may be left at two rows."""
LEAST_NAMES, LEAST_ROWS = 4, 60


@dataclass(frozen=True)
class Faded:
    """A feature whose rank correlation with the next row's return is `first`, and `second` with that after it."""

    feature: str
    first: float
    second: float

    def line(self) -> str:
        """The warning."""
        return (
            f"closes may not be simultaneous: {self.feature} ranks the next return with a correlation of "
            f"{self.first:+.3f} and the one after with {self.second:+.3f}; no one can trade that, use closes of one "
            "hour, or rows of weeks"
        )


def faded_signal(market: Market, window: Window) -> Faded | None:
    """The feature whose correlation with returns fades most suspiciously within two rows of `window`; None if none."""
    rows = np.asarray(window.decisions, dtype=np.int64)
    rows = rows[rows + 2 < window.stop]
    if len(rows) < LEAST_ROWS:
        return None
    returns = market.returns[:, :-1]
    usable = (market.status[rows][:, :-1] == TRADABLE) & np.isfinite(market.close[rows + 2])
    worst: Faded | None = None
    for number, name in enumerate(market.feature_names):
        values = np.where(usable, market.features[rows, :, number], np.nan)
        first, error = _mean_correlation(values, np.where(usable, returns[rows + 1], np.nan))
        if abs(first) < STRONG or abs(first) < SURE * error:
            continue
        second, _ = _mean_correlation(values, np.where(usable, returns[rows + 2], np.nan))
        if np.sign(first) * second <= GONE * abs(first) and (worst is None or abs(first) > abs(worst.first)):
            worst = Faded(name, first, second)
    return worst


def _mean_correlation(values: NDArray[np.float64], returns: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over rows of the rank correlation across names [R, d], and its standard error; 0, inf without any."""
    ranks = [pd.DataFrame(cells).rank(axis=1).to_numpy() for cells in (values, returns)]
    ranks = [cells - np.nanmean(cells, axis=1, keepdims=True) for cells in ranks if np.isfinite(cells).any()]
    if len(ranks) < 2:
        return 0.0, np.inf
    enough = np.isfinite(values).sum(axis=1) >= LEAST_NAMES
    spread = np.sqrt(np.nansum(ranks[0] ** 2, axis=1) * np.nansum(ranks[1] ** 2, axis=1))
    known = enough & (spread > 0)
    if known.sum() < LEAST_ROWS:
        return 0.0, np.inf
    found = np.nansum(ranks[0] * ranks[1], axis=1)[known] / spread[known]
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))
