"""Days at whose close a portfolio may be changed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finflow.data.calendar import BUSINESS, Calendar

Dates = NDArray[np.datetime64]


def decision_days(dates: Dates, rebalance: str, calendar: Calendar = BUSINESS) -> NDArray[np.bool_]:
    """[T] true on every row, or on the calendar's last session of each of its weeks or of each month.

    A week begins on the first day that is open after one that is not, and on Monday where all are.

    The exchange's calendar tells beforehand which day is the last of its week; here the dates of the data stand in for
    it. After the last row the open days of the week are assumed, so that only a holiday right after the last row can
    change the decision of that row once longer data arrive.
    """
    period = PERIODS[rebalance]
    following = np.append(dates[1:], calendar.following(dates[-1]))
    return period(dates, calendar) != period(following, calendar)


def _days(dates: Dates, _: Calendar) -> NDArray[np.int64]:
    return dates.astype(np.int64)


def _weeks(dates: Dates, calendar: Calendar) -> NDArray[np.int64]:
    return (dates.astype(np.int64) + 3 - calendar.first_day) // 7  # day 0, 1970-01-01, was a Thursday


def _months(dates: Dates, _: Calendar) -> NDArray[np.int64]:
    return dates.astype("datetime64[M]").astype(np.int64)


Period = Callable[[Dates, Calendar], NDArray[np.int64]]
PERIODS: dict[str, Period] = {"daily": _days, "weekly": _weeks, "monthly": _months}
