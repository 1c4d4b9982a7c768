"""Returns, turnover and cost by calendar year and month, whatever the market's rows are."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finflow.evaluation.result import Floats

Period = Literal["Y", "M"]
Dates = NDArray[np.datetime64]


def period_returns(dates: Dates, net: Floats, period: Period) -> tuple[Dates, Floats]:
    """Years or months [P] that hold rows, and what their net returns [R] compound to [P].

    A row belongs to the period of its date: the return of a week that ends in February is February's. The first and
    the last period may be cut by the window.
    """
    growth, periods = _grouped(dates, 1.0 + net, period, np.multiply)
    return periods, growth - 1.0


def period_sums(dates: Dates, values: Floats, period: Period) -> tuple[Dates, Floats]:
    """Years or months [P] that hold rows, and the sum of [R] values in each."""
    total, periods = _grouped(dates, values, period, np.add)
    return periods, total


def _grouped(dates: Dates, values: Floats, period: Period, join: Any) -> tuple[Floats, Dates]:
    periods, first = np.unique(dates.astype(f"datetime64[{period}]"), return_index=True)
    return join.reduceat(values, first), periods
