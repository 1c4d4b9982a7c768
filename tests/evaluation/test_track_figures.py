"""Periods, drawdowns, figures against another track and rolling ones, computed again with pandas and by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from finflow.evaluation.metrics import deepest_drawdowns, period_returns, period_sums, underwater
from finflow.evaluation.relative import captures, relative, rolling, rolling_window, skewness
from finflow.evaluation.result import Track

CALENDARS = {"B": 252, "D": 365, "W-FRI": 52, "ME": 12}


def make_track(net: np.ndarray, dates: np.ndarray | None = None, year: int = 252) -> Track:
    dates = np.busday_offset(np.datetime64("2019-11-04"), np.arange(len(net))) if dates is None else dates
    none, flat = np.zeros((len(net), 1)), np.zeros(len(net))
    return Track("x", dates, none, none, flat, flat, net, net, 0, year)


def pair(frequency: str, rows: int = 700) -> tuple[Track, Track, pd.Series, pd.Series]:
    rng = np.random.default_rng(4)
    index = pd.date_range("2003-05-02", periods=rows, freq=frequency)
    other = rng.standard_t(5, rows) * 0.01 + 0.0004
    net = 0.7 * other + 0.005 * rng.normal(0.05, 1, rows)
    dates = index.to_numpy().astype("datetime64[D]")
    tracks = (make_track(x, dates, CALENDARS[frequency]) for x in (net, other))
    return (*tracks, pd.Series(net, index), pd.Series(other, index))


@pytest.mark.parametrize("frequency", CALENDARS)
@pytest.mark.parametrize(("period", "rule"), [("Y", "YE"), ("M", "ME")])
def test_periods_compound_as_pandas_resamples(frequency: str, period: str, rule: str) -> None:
    track, _, series, _ = pair(frequency)
    periods, returns = period_returns(track.dates, track.net, period)  # pyright: ignore[reportArgumentType]
    wanted = (1 + series).resample(rule).prod() - 1
    np.testing.assert_allclose(returns, wanted.to_numpy(), atol=1e-12)
    assert [str(p)[:7] for p in periods] == [str(p)[: 4 if period == "Y" else 7] for p in wanted.index]
    _, sums = period_sums(track.dates, track.net, period)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(sums, series.resample(rule).sum().to_numpy(), atol=1e-12)


def test_months_without_a_row_are_left_out() -> None:
    dates = np.array(["2020-01-30", "2020-01-31", "2021-03-01"], dtype="datetime64[D]")
    months, returns = period_returns(dates, np.array([0.1, 0.1, -0.5]), "M")
    assert months.astype(str).tolist() == ["2020-01", "2021-03"]
    np.testing.assert_allclose(returns, [0.21, -0.5])


def test_drawdowns_begin_at_the_first_loss_and_end_when_the_peak_is_regained() -> None:
    """NAV .9 .99 1.1 | 1.1 .55 .66 1.32 | 1.19 1.2: under the start, then half, then the end is open."""
    nav = np.array([0.9, 0.99, 1.1, 1.1, 0.55, 0.66, 1.32, 1.19, 1.2])
    track = make_track(nav / np.r_[1.0, nav[:-1]] - 1)
    found = deepest_drawdowns(track)
    assert [(d.first, d.trough, d.last, d.recovered, d.length) for d in found] == [
        (4, 4, 5, True, 3), (0, 0, 1, True, 3), (7, 7, 8, False, 2),
    ]  # fmt: skip
    assert [d.depth for d in found] == pytest.approx([0.5, 0.1, 1 - 1.19 / 1.32])
    assert deepest_drawdowns(track, 1) == found[:1]
    assert deepest_drawdowns(make_track(np.full(5, 0.01))) == []


def test_drawdowns_are_those_of_a_running_maximum() -> None:
    track, _, series, _ = pair("B")
    nav = pd.concat([pd.Series([1.0]), (1 + series).cumprod()], ignore_index=True)
    under = (nav / nav.cummax() - 1).iloc[1:].to_numpy()
    np.testing.assert_allclose(underwater(track.nav), under, atol=1e-12)
    spells = pd.Series(under).groupby((under >= -1e-15).cumsum()).min().nsmallest(5)
    assert [-d.depth for d in deepest_drawdowns(track)] == pytest.approx(spells.tolist(), abs=1e-12)


@pytest.mark.parametrize("frequency", CALENDARS)
def test_figures_against_another_track_are_those_of_pandas(frequency: str) -> None:
    track, other, ours, theirs = pair(frequency)
    year, active = CALENDARS[frequency], ours - theirs
    found = relative(track, other)
    assert found.beta == pytest.approx(ours.cov(theirs) / theirs.var(), abs=1e-12)
    assert found.correlation == pytest.approx(ours.corr(theirs), abs=1e-12)
    assert found.active_return == pytest.approx(active.mean() * year, abs=1e-12)
    assert found.tracking_error == pytest.approx(active.std() * math.sqrt(year), abs=1e-12)
    assert found.information_ratio == pytest.approx(active.mean() / active.std() * math.sqrt(year), abs=1e-9)
    assert skewness(track.net) == pytest.approx(ours.skew(), abs=1e-9)
    months = pd.DataFrame({"a": (1 + ours).resample("ME").prod(), "b": (1 + theirs).resample("ME").prod()})
    for capture, held in ((found.up_capture, months[months.b > 1]), (found.down_capture, months[months.b < 1])):
        mean = held.prod() ** (1 / len(held)) - 1
        assert capture == pytest.approx(mean.a / mean.b, abs=1e-9)


def test_captures_by_hand_and_where_there_is_none() -> None:
    dates = np.array(["2020-01-31", "2020-02-28", "2020-03-31", "2020-04-30"], dtype="datetime64[D]")
    other = make_track(np.array([0.10, -0.10, 0.10, -0.05]), dates, 12)
    assert captures(make_track(np.array([0.05, -0.10, 0.05, -0.05]), dates, 12), other) == pytest.approx((0.5, 1.0))
    rising = make_track(np.full(4, 0.01), dates, 12)
    assert captures(other, rising)[1] is None
    flat = relative(other, make_track(np.zeros(4), dates, 12))
    assert (flat.beta, flat.correlation, flat.up_capture, flat.down_capture) == (None, None, None, None)
    assert skewness(np.zeros(10)) is None


@pytest.mark.parametrize("frequency", CALENDARS)
def test_rolling_figures_are_those_of_pandas(frequency: str) -> None:
    track, other, ours, theirs = pair(frequency)
    year = CALENDARS[frequency]
    found = rolling(track, other)
    assert found is not None
    assert found.window == year
    for one, sharpe, volatility in (
        (ours, found.sharpe, found.volatility),
        (theirs, found.other_sharpe, found.other_volatility),
    ):
        over = one.rolling(year)
        np.testing.assert_allclose(volatility, over.std().dropna() * math.sqrt(year), atol=1e-9)
        np.testing.assert_allclose(sharpe, (over.mean() / over.std()).dropna() * math.sqrt(year), atol=1e-7)
    beta = (ours.rolling(year).cov(theirs) / theirs.rolling(year).var()).dropna()
    np.testing.assert_allclose(found.beta, beta, atol=1e-7)


def test_a_short_track_rolls_over_quarters_and_a_shorter_one_not_at_all() -> None:
    assert [rolling_window(rows, 252) for rows in (378, 377)] == [252, 63]
    assert rolling_window(10, 12) == 4
    short = make_track(np.random.default_rng(0).normal(0, 0.01, 62))
    assert rolling(short, short) is None
    flat = rolling(make_track(np.zeros(100)), make_track(np.zeros(100)))
    assert flat is not None
    assert np.isnan(flat.beta).all()
    assert np.isnan(flat.sharpe).all()
