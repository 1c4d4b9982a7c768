"""The calendar of a market, inferred from its dates: rows per year and open days of the week.

Windows, here and in `conf/`, are lengths of time in trading days, of which `TRADING_YEAR` make a year. A calendar
turns them into rows: a year is 252 rows of business days, 365 of seven-day weeks, 52 of weeks and 12 of months.
`decision_days` are the days at whose close a portfolio may be changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finflow.errors import ConfigError, DataError

TRADING_YEAR = 252
"""Trading days of a year: the unit of every window."""
SPREAD = 4
"""Fewest rows of a window from which a standard deviation is computed."""
CALENDAR = "calendar"
"""Entry of a run's `run.json`."""
LONG_GAP = 10
"""A gap of this many days between daily rows is longer than a weekend or holiday."""

Kind = Literal["daily", "weekly", "monthly"]
_YEAR_OF_WEEK = {5: TRADING_YEAR, 6: 302, 7: 365}
"""Open days of a week -> rows per year, less holidays where there are weekends."""
NOMINAL = {12, 52, *_YEAR_OF_WEEK.values()}
"""Rows per year that are standard; other numbers were counted."""
_OPEN = 0.07
"""A day of the week with at least this share of the rows (half of a seventh) counts as open."""
_TOLERANCE = 0.05
"""Relative difference beyond which the counted rows per year replace those of the open days."""
_FEW = 10
"""Fewer rows than this are too few to infer from: business days are assumed."""
_COUNTED = 200
"""Fewest daily rows from which rows per year are counted."""
_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Calendar:
    """When a market has rows.

    Attributes
    ----------
    kind : what a row is.
    year : rows of a year, by which figures are annualised.
    week : for Monday to Sunday, whether it is open; of daily rows alone, else all are.
    """

    kind: Kind = "daily"
    year: int = TRADING_YEAR
    week: tuple[bool, ...] = (True,) * 5 + (False,) * 2

    def rows(self, days: int, least: int = 1) -> int:
        """Rows of a time of `days` trading days, at the least `least` (or `days`, where those are fewer)."""
        if self.year == TRADING_YEAR:
            return days
        return max(round(days * self.year / TRADING_YEAR), min(days, least), 1)

    @property
    def unit(self) -> str:
        """What a row is called."""
        return {"daily": "day", "weekly": "week", "monthly": "month"}[self.kind]

    @property
    def name(self) -> str:
        """Its days in words."""
        if self.kind != "daily":
            return self.kind
        if all(self.week):
            return "seven days a week"
        if self.week == Calendar.week:
            return "business days"
        first, count = self.first_day, sum(self.week)
        if all(self.week[(first + k) % 7] for k in range(count)):
            return f"{_NAMES[first]} to {_NAMES[(first + count - 1) % 7]}"
        return ", ".join(name for name, open_ in zip(_NAMES, self.week, strict=True) if open_)

    @property
    def first_day(self) -> int:
        """Day on which a week begins, 0 for Monday: the first that is open after one that is not."""
        return next((day for day in range(7) if self.week[day] and not self.week[day - 1]), 0)

    def line(self) -> str:
        """For the console, `run.json` and the report: `seven days a week, 365 days a year`."""
        return f"{self.name}, {self.year} {self.unit}s a year"

    def facts(self) -> dict[str, str | int]:
        """For `run.json`."""
        return {"days": self.name, "rows_a_year": self.year}

    def following(self, day: np.datetime64) -> np.datetime64:
        """The next day with a row after `day`, holidays not known."""
        if self.kind == "weekly":
            return day + np.timedelta64(7, "D")
        if self.kind == "monthly":
            return (day.astype("datetime64[M]") + 1).astype("datetime64[D]")
        return np.busday_offset(day, 1, roll="backward", weekmask=list(self.week)).astype("datetime64[D]")


BUSINESS = Calendar()


def unit_of(year: int) -> str:
    """What a row is called where so many of them are a year."""
    return {52: "week", 12: "month"}.get(year, "day")


def calendar_of(dates: NDArray[np.datetime64], periods_per_year: int | str = "auto") -> Calendar:
    """Infer the calendar from increasing `dates` [T] alone, never from prices.

    Parameters
    ----------
    periods_per_year : `env.periods_per_year`: rows of a year, or `auto` to count them.

    Raises
    ------
    DataError
        If rows are neither daily, nor weekly, nor monthly.
    """
    own = None if isinstance(periods_per_year, str) else periods_per_year
    if len(dates) < _FEW:
        return Calendar(year=own or TRADING_YEAR)
    gaps = np.diff(dates).astype(np.int64)
    usual = float(np.median(gaps))
    everyday = (True,) * 7
    if usual >= 28 and usual <= 31:
        return Calendar("monthly", own or 12, everyday)
    if usual == 7:
        return Calendar("weekly", own or 52, everyday)
    if usual != 1:
        raise DataError(
            f"dates: rows are {usual:g} days apart, as a rule, from {dates[0]} to {dates[-1]}: neither daily, weekly "
            "nor monthly; give closes of one of these, resampled to the last close of each week, say"
        )
    share = np.bincount((dates.astype(np.int64) + 3) % 7, minlength=7) / len(dates)  # 1970-01-01 was a Thursday
    week = tuple((share >= _OPEN).tolist())
    if own is not None:
        return Calendar("daily", own, week)
    nominal = _YEAR_OF_WEEK.get(sum(week), TRADING_YEAR)
    short = gaps[gaps <= LONG_GAP]
    counted = 365.25 * len(short) / int(short.sum())
    believed = len(dates) < _COUNTED or abs(counted / nominal - 1) <= _TOLERANCE
    return Calendar("daily", nominal if believed else round(counted), week)


def check_day(key: str, value: str) -> date:
    """Parse a YYYY-MM-DD value of `key`.

    Raises
    ------
    ConfigError
        If it is no calendar day.
    """
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{key}={value!r}: not a calendar day; write it as YYYY-MM-DD") from None


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
