"""Daily prices as a source returns them: nothing is filled or repaired."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    files : contents of the user's files beside the prices, by key; empty where they still have to be read.
    warnings : one line each.
    layout : how they were laid out, in words; empty where a source has but one way.
    """

    dates: NDArray[np.datetime64]
    tickers: tuple[str, ...]
    close: NDArray[np.float64]
    volume: NDArray[np.float64] | None = None
    signals: Mapping[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    warnings: tuple[str, ...] = ()
    layout: str = ""

    def of(self, tickers: Sequence[str]) -> "Prices":
        """The same days of some of the names, in the order of `tickers`."""
        columns = [self.tickers.index(ticker) for ticker in tickers]
        return replace(self._each(lambda values: values[:, columns]), tickers=tuple(tickers))

    def on(self, days: NDArray[np.bool_]) -> "Prices":
        """The days marked in `days` [T]."""
        return replace(self._each(lambda values: values[days]), dates=self.dates[days])

    def with_volume(self, volume: NDArray[np.float64]) -> "Prices":
        """The same with volumes [T, d]."""
        return replace(self, volume=volume)

    def warned(self, line: str) -> "Prices":
        """The same with one more warning."""
        return replace(self, warnings=(*self.warnings, line))

    def until(self, rows: int) -> "Prices":
        """The first `rows` days."""
        return replace(self._each(lambda values: values[:rows]), dates=self.dates[:rows])

    def _each(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> "Prices":
        return replace(
            self,
            close=change(self.close),
            volume=None if self.volume is None else change(self.volume),
            signals={name: change(values) for name, values in self.signals.items()},
        )
