"""Days at whose close a portfolio may be changed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Dates = NDArray[np.datetime64]


def decision_days(dates: Dates, rebalance: str) -> NDArray[np.bool_]:
    """[T] true on every day, or on the last trading day of each ISO week or calendar month.

    That a day is the last of its week is known beforehand from the exchange's calendar, which the dates of the data
    stand for. After the last row there are none: Monday to Friday is assumed, so a holiday that follows the last
    row is the one case in which longer data decide that row differently.
    """
    period = PERIODS[rebalance]
    following = np.append(dates[1:], np.busday_offset(dates[-1], 1, roll="backward").astype("datetime64[D]"))
    return period(dates) != period(following)


def _days(dates: Dates) -> NDArray[np.int64]:
    return dates.astype(np.int64)


def _iso_weeks(dates: Dates) -> NDArray[np.int64]:
    return (dates.astype(np.int64) + 3) // 7  # day 0, 1970-01-01, was a Thursday: weeks begin on Mondays


def _months(dates: Dates) -> NDArray[np.int64]:
    return dates.astype("datetime64[M]").astype(np.int64)


PERIODS: dict[str, Callable[[Dates], NDArray[np.int64]]] = {"daily": _days, "weekly": _iso_weeks, "monthly": _months}
