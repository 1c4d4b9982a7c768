"""The market as plain arrays, its calendar and its folds; row t holds values that are known at the close of day t.

The calendar is inferred from the dates: rows per year and open days of the week. Windows, here and in `conf/`, are
lengths of time in trading days, of which `TRADING_YEAR` make a year. A calendar turns them into rows: a year is 252
rows of business days, 365 of seven-day weeks, 52 of weeks and 12 of months.

Folds are anchored: train on all history, validate on the years before the test window, test on what follows. A window
lists return rows. `PURGE` days are removed from the end of train and of validation, so that no label shares a return
with the next window.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from finflow.errors import ConfigError, DataError
from finflow.schema.sections import Env

Floats = NDArray[np.float64]
Dates = NDArray[np.datetime64]

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


def calendar_of(dates: Dates, periods_per_year: int | str = "auto") -> Calendar:
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


def decision_days(dates: Dates, rebalance: str, calendar: Calendar = BUSINESS) -> NDArray[np.bool_]:
    """[T] true on every row, or on the calendar's last session of each of its weeks or of each month.

    A week begins on the first day that is open after one that is not, and on Monday where all are.

    The exchange's calendar tells beforehand which day is the last of its week; here the dates of the data stand in for
    it. After the last row the open days of the week are assumed, so that only a holiday right after the last row can
    change the decision of that row once longer data arrive.
    """

    def period(days: Dates) -> NDArray[np.int64]:
        """Number of the month, week or day that each day lies in."""
        if rebalance == "monthly":
            return days.astype("datetime64[M]").astype(np.int64)
        number = days.astype(np.int64)
        return number if rebalance == "daily" else (number + 3 - calendar.first_day) // 7  # day 0 was a Thursday

    return period(dates) != period(np.append(dates[1:], calendar.following(dates[-1])))


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

    dates: Dates
    assets: tuple[str, ...]
    close: Floats
    returns: Floats
    status: NDArray[np.int8]
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    market_features: NDArray[np.float32]
    market_feature_names: tuple[str, ...]
    regime: NDArray[np.int8]
    decision: NDArray[np.bool_]
    benchmark: Floats
    index: Floats
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


PURGE = 21
"""Trading days."""
SP500_FOLDS = {"2000": (2000, 2002), "2008": (2008, 2009), "2013": (2013, 2017), "2018": (2018, 2022)}
"""First and last year of each test window; the last fold is `auto`."""
VALIDATION_YEARS = 3
TEST_FRACTION, VALIDATION_FRACTION = 0.20, 0.15
MIN_TRAIN, MIN_OTHER = 252, 21
"""Fewest trading days of returns to train on, and of validation and test: the latter also as rows."""
LEAST_TRAIN = 120
"""Fewest rows to train on, however long a row lasts: ten years of months."""
MIN_NAMES = 2
"""Names that must be tradable before a portfolio can be trained."""

Days = list[str]


class FoldDates(TypedDict):
    """A fold as plain dates, [first, last] return day of each window, ISO; outlives the rows of one data set."""

    name: str
    train: Days
    validation: Days
    test: Days


def make_fold(market: Market, env: Env, name: str) -> Fold:
    """Split `market` into train, validation and test.

    Training begins with the first decision at which features, `env.min_history` and the regime label are complete,
    at or after `env.start`; where waiting for the label would leave too little to train on, days without one stay
    in and count as normal.

    Raises
    ------
    ConfigError
        If there is no fold of this name for `env.source`.
    DataError
        If a window would be too short.
    """
    choices = ("auto", *SP500_FOLDS) if env.source == "sp500" else ("auto",)
    if name not in choices:
        raise ConfigError(f"fold={name!r}: no such fold for env={env.source}; choose one of {', '.join(choices)}")
    starts = _first_decisions(market, env)
    label = tuple(SP500_FOLDS)[-1] if env.source == "sp500" and name == "auto" else name
    fold = _cut(market, starts[0], label)
    least_train, least_other = _least(market.calendar)
    if _length(fold.train) < least_train:
        fold = _cut(market, starts[1], label)
    unit = market.calendar.unit
    for part, window, least in (
        ("train", fold.train, least_train),
        ("validation", fold.validation, least_other),
        ("test", fold.test, least_other),
    ):
        if _length(window) < least:
            earlier = "" if env.start is None else ", or set env.start earlier"
            raise DataError(
                f"fold={label}: {part} has {_length(window)} {unit}s, at least {least} are needed (of "
                f"{len(market.dates)} {unit}s, decisions can begin on {unit} {starts[1] + 1}); add history{earlier}"
            )
    return fold


def _least(calendar: Calendar) -> tuple[int, int]:
    """Fewest return rows to train on, and of validation and test."""
    return max(calendar.rows(MIN_TRAIN), LEAST_TRAIN), max(calendar.rows(MIN_OTHER), MIN_OTHER)


def _length(window: Window) -> int:
    """Rows of a window, which may begin after its own end."""
    return max(window.stop - window.start, 0)


def minimum_rows(env: Env, calendar: Calendar) -> int:
    """Fewest rows of prices from which features are complete and a proportional fold can be cut."""
    (train, other), purge = _least(calendar), calendar.rows(PURGE)
    usable = train + purge
    while _split(usable)[0] - purge < train or _split(usable)[1] - purge < other:
        usable += 1
    return calendar.rows(env.min_history) + 1 + usable


def fold_dates(market: Market, fold: Fold) -> FoldDates:
    """Dates of `fold`, to store with a run."""

    def ends(window: Window) -> Days:
        return [str(market.dates[window.start]), str(market.dates[window.stop - 1])]

    return FoldDates(name=fold.name, train=ends(fold.train), validation=ends(fold.validation), test=ends(fold.test))


def fold_from_dates(market: Market, dates: FoldDates) -> Fold:
    """The fold that `dates` describe, on data that may have grown since; a DataError where it lacks one of them."""

    def window(days: Days) -> Window:
        rows = [int(np.searchsorted(market.dates, np.datetime64(day, "D"))) for day in days]
        for row, day in zip(rows, days, strict=True):
            if row >= len(market.dates) or market.dates[row] != np.datetime64(day, "D"):
                raise DataError(f"fold={dates['name']}: {day} is not a day of the prices; use the data of the run")
        return Window(rows[0], rows[1] + 1)

    return Fold(dates["name"], window(dates["train"]), window(dates["validation"]), window(dates["test"]))


def _first_decisions(market: Market, env: Env) -> tuple[int, int]:
    """First decision row with a regime label, and first without waiting for one."""
    tradable = (market.status[:, :-1] == TRADABLE).sum(axis=1) >= MIN_NAMES
    begin = 0 if env.start is None else int(np.searchsorted(market.dates, np.datetime64(env.start, "D")))
    complete = np.flatnonzero(tradable[begin:])
    labelled = np.flatnonzero(tradable[begin:] & (market.regime[begin:] != NO_LABEL))
    if not len(complete):
        since = f" from {env.start} on" if env.start else ""
        raise DataError(
            f"prices: no day{since} on which {MIN_NAMES} names have {env.min_history} priced days behind them "
            f"({len(market.dates)} {market.calendar.unit}s in all); add history, or set env.start earlier, "
            "env.end later or env.min_history lower"
        )
    first = begin + int(complete[0])
    return (begin + int(labelled[0]) if len(labelled) else first, first)


def _cut(market: Market, first_decision: int, name: str) -> Fold:
    """The fold of a test window by its years, or else in proportion to what there is."""
    start, rows, purge = first_decision + 1, len(market.dates), market.calendar.rows(PURGE)
    if name in SP500_FOLDS:
        first, last = SP500_FOLDS[name]
        years = market.dates.astype("datetime64[Y]").astype(np.int64) + 1970
        validation, test, stop = (int(i) for i in np.searchsorted(years, [first - VALIDATION_YEARS, first, last + 1]))
    else:
        train, other, _ = _split(rows - start)
        validation, test, stop = start + train, start + train + other, rows
    return Fold(name, Window(start, validation - purge), Window(validation, test - purge), Window(test, stop))


def _split(rows: int) -> tuple[int, int, int]:
    """Rows of train, validation and test."""
    test, validation = round(TEST_FRACTION * rows), round(VALIDATION_FRACTION * rows)
    return rows - test - validation, validation, test
