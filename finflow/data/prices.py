"""Daily prices as every source hands them over: what was read, nothing filled, nothing repaired."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prices:
    """Closes of d names on T days.

    Attributes
    ----------
    dates : [T] datetime64[D], strictly increasing.
    tickers : d names.
    close : [T, d] float64, adjusted closes; NaN where there is no price.
    volume : [T, d] float64, or None where the source has none.
    signals : name -> [T, d] float64, a user's own signals, row t known at the close of t; NaN where missing.
    warnings : one line each.
    """

    dates: NDArray[np.datetime64]
    tickers: tuple[str, ...]
    close: NDArray[np.float64]
    volume: NDArray[np.float64] | None = None
    signals: Mapping[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])
    warnings: tuple[str, ...] = ()
