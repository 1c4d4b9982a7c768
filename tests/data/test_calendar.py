"""The calendar of dates, and what counts in it: years, windows, decision days, cash."""

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import market_of
from finflow.data.market import BUSINESS, Calendar, calendar_of, decision_days, make_fold, minimum_rows
from finflow.data.prices import Prices
from finflow.data.series import cash_returns
from finflow.errors import DataError
from finflow.schema.sections import Env


def days_of(frequency: object, rows: int, start: str = "2012-01-02") -> np.ndarray:
    return pd.date_range(start, periods=rows, freq=frequency).to_numpy().astype("datetime64[D]")  # type: ignore[arg-type]


def week(days: str) -> pd.offsets.CustomBusinessDay:
    return pd.offsets.CustomBusinessDay(weekmask=days)


KINDS = {
    "business days": ("B", "business days, 252 days a year"),
    "seven days": ("D", "seven days a week, 365 days a year"),
    "Sunday to Thursday": (week("Sun Mon Tue Wed Thu"), "Sunday to Thursday, 252 days a year"),
    "Saturday to Wednesday": (week("Sat Sun Mon Tue Wed"), "Saturday to Wednesday, 252 days a year"),
    "Monday to Saturday": (week("Mon Tue Wed Thu Fri Sat"), "Monday to Saturday, 302 days a year"),
    "weekly": ("W-FRI", "weekly, 52 weeks a year"),
    "weekly on Sundays": ("W-SUN", "weekly, 52 weeks a year"),
    "month ends": ("ME", "monthly, 12 months a year"),
    "last business days of months": ("BME", "monthly, 12 months a year"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kind_and_year_come_from_the_dates(kind: str) -> None:
    frequency, line = KINDS[kind]
    assert calendar_of(days_of(frequency, 400)).line() == line


def test_the_embedded_prices_keep_252(sp500: object) -> None:
    assert sp500.calendar == BUSINESS  # type: ignore[attr-defined]
    for days in (1, 5, 21, 63, 126, 200, 252, 756):
        assert BUSINESS.rows(days) == days


def test_holidays_do_not_change_the_year_but_a_tenth_of_the_days_does() -> None:
    days = days_of("B", 1500)
    assert calendar_of(np.delete(days, np.arange(10, 1500, 29))).year == 252
    found = calendar_of(np.delete(days, np.arange(5, 1500, 8)))
    assert found.year == pytest.approx(261 * 7 / 8, abs=2)
    assert found.name == "business days"


def test_a_hole_of_months_is_not_counted() -> None:
    days = days_of("B", 1500)
    assert calendar_of(np.concatenate([days[:500], days[700:]])).year == 252


@pytest.mark.parametrize("frequency", ["2D", "14D", "QE"])
def test_other_distances_are_refused_with_what_to_do(frequency: str) -> None:
    with pytest.raises(DataError, match=r"^dates: rows are [\d.]+ days apart.*; give closes of one of these"):
        calendar_of(days_of(frequency, 300, "1950-01-02"))


def test_rows_a_year_may_be_said() -> None:
    assert calendar_of(days_of("D", 400), 260).year == 260
    assert calendar_of(days_of("W-FRI", 400), 50) == Calendar("weekly", 50, (True,) * 7)


@pytest.mark.parametrize(
    ("year", "rows"), [(252, [5, 21, 63, 252, 756]), (365, [7, 30, 91, 365, 1095]), (52, [1, 4, 13, 52, 156]),
                       (12, [1, 1, 3, 12, 36])]
)  # fmt: skip
def test_windows_of_time_become_rows(year: int, rows: list[int]) -> None:
    assert [Calendar(year=year).rows(days) for days in (5, 21, 63, 252, 756)] == rows
    assert Calendar(year=12).rows(21, least=4) == 4


def test_the_last_session_of_a_week_is_the_calendars_own() -> None:
    sunday = days_of(week("Sun Mon Tue Wed Thu"), 300)
    chosen = sunday[decision_days(sunday, "weekly", calendar_of(sunday))]
    assert {pd.Timestamp(day).day_name() for day in chosen} == {"Thursday"}
    seven = days_of("D", 300)
    assert {pd.Timestamp(d).day_name() for d in seven[decision_days(seven, "weekly", calendar_of(seven))]} == {"Sunday"}
    weekly = days_of("W-FRI", 200)
    assert decision_days(weekly, "weekly", calendar_of(weekly)).all()
    months = decision_days(weekly, "monthly", calendar_of(weekly))
    assert months.sum() == pytest.approx(200 / 52 * 12, abs=1)


@pytest.mark.parametrize(
    ("frequency", "last", "weekly", "monthly"),
    [
        ("D", "2024-06-28", False, False),  # a Friday: Saturday follows
        ("D", "2024-06-30", True, True),
        (week("Sun Mon Tue Wed Thu"), "2024-06-27", True, False),  # Sunday the 30th follows
        (week("Sun Mon Tue Wed Thu"), "2024-05-30", True, True),  # Sunday the 2nd follows
        ("W-FRI", "2024-06-28", True, True),
        ("W-FRI", "2024-06-21", True, False),
    ],
)
def test_whether_the_newest_row_decides(frequency: object, last: str, weekly: bool, monthly: bool) -> None:
    days = pd.date_range(end=last, periods=300, freq=frequency).to_numpy().astype("datetime64[D]")  # type: ignore[arg-type]
    calendar = calendar_of(days)
    assert decision_days(days, "weekly", calendar)[-1] == weekly
    assert decision_days(days, "monthly", calendar)[-1] == monthly


@pytest.mark.parametrize("frequency", ["B", "D", "W-FRI", "ME"])
def test_cash_earns_its_yearly_rate_in_a_year(frequency: str) -> None:
    days = days_of(frequency, 800)
    calendar = calendar_of(days)
    earned = cash_returns(0.05, days, calendar=calendar)
    assert np.prod(1 + earned[1 : calendar.year + 1]) == pytest.approx(1.05, abs=1e-12)


def market_with(env: Env, frequency: str, rows: int) -> Prices:
    days = days_of(frequency, rows, "1960-01-04")
    steps = np.random.default_rng(0).normal(3e-4, 0.02, (rows, 5)).cumsum(axis=0)
    return Prices(days, ("A", "B", "C", "D", "E"), 100 * np.exp(steps))


@pytest.mark.parametrize("frequency", ["B", "D", "W-FRI", "ME"])
def test_the_least_history_is_just_enough(frequency: str) -> None:
    env = load("pretrain", ["env=csv", "env.path=p.csv"]).env
    calendar = calendar_of(days_of(frequency, 400))
    least = minimum_rows(env, calendar)
    make_fold(market_of(market_with(env, frequency, least), env), env, "auto")
    with pytest.raises(DataError, match="are needed"):
        make_fold(market_of(market_with(env, frequency, least - 1), env), env, "auto")


def test_features_of_weekly_rows_use_the_year_of_weeks() -> None:
    env = load("pretrain", ["env=csv", "env.path=p.csv"]).env
    prices = market_with(env, "W-FRI", 400)
    market = market_of(prices, env)
    close, at = prices.close, 300
    names = list(market.feature_names)
    drawdown = close[at] / close[at - 51 : at + 1].max(axis=0) - 1
    np.testing.assert_allclose(market.features[at, :, names.index("drawdown_252")], drawdown, rtol=1e-5)
    year = np.diff(np.log(close[at - 52 : at + 1]), axis=0).std(axis=0, ddof=1)
    path = np.log(close[at - 4] / close[at - 52]) / (48**0.5 * year)
    np.testing.assert_allclose(market.features[at, :, names.index("momentum_12_1")], path, rtol=1e-5)
