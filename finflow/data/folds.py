"""Anchored folds: train on all history, validate on the years before the test window, test on what follows.

A window lists return rows. `PURGE` days are removed from the end of train and of validation, so that no label shares a
return with the next window.
"""

from typing import TypedDict

import numpy as np

from finflow.data.calendar import Calendar, check_day
from finflow.data.market import NO_LABEL, TRADABLE, Fold, Market, Window
from finflow.errors import ConfigError, DataError
from finflow.schema.env import Env

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
    build = _calendar_fold if env.source == "sp500" else _proportional_fold
    label = tuple(SP500_FOLDS)[-1] if env.source == "sp500" and name == "auto" else name
    fold = build(market, starts[0], label)
    least_train, least_other = _least(market.calendar)
    if _length(fold.train) < least_train:
        fold = build(market, starts[1], label)
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
    """Days of a window that may have turned out empty, or begin after its own end."""
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
    """The fold that `dates` describe, on data that may have grown since.

    Raises
    ------
    DataError
        If a day is not in the market.
    """

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
    begin = 0
    if env.start is not None:
        begin = int(np.searchsorted(market.dates, np.datetime64(check_day("env.start", env.start), "D")))
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


def _calendar_fold(market: Market, first_decision: int, name: str) -> Fold:
    first_year, last_year = SP500_FOLDS[name]
    years = market.dates.astype("datetime64[Y]").astype(np.int64) + 1970
    test = (int(np.searchsorted(years, first_year)), int(np.searchsorted(years, last_year, side="right")))
    validation = int(np.searchsorted(years, first_year - VALIDATION_YEARS))
    return _purged(market, name, first_decision + 1, validation, *test)


def _proportional_fold(market: Market, first_decision: int, name: str) -> Fold:
    rows = len(market.dates)
    train, validation, _ = _split(rows - first_decision - 1)
    start = first_decision + 1
    return _purged(market, name, start, start + train, start + train + validation, rows)


def _split(rows: int) -> tuple[int, int, int]:
    test, validation = round(TEST_FRACTION * rows), round(VALIDATION_FRACTION * rows)
    return rows - test - validation, validation, test


def _purged(market: Market, name: str, train: int, validation: int, test: int, stop: int) -> Fold:
    purge = market.calendar.rows(PURGE)
    return Fold(name, Window(train, validation - purge), Window(validation, test - purge), Window(test, stop))
