"""1/N, a user's own benchmark and cash; and the days on which portfolios may change."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import market_of
from finflow.data.market import TRADABLE, Market, decision_days
from finflow.data.prices import Prices
from finflow.data.series import cash_returns, equal_weight, own_benchmark
from finflow.errors import ConfigError, DataError
from finflow.schema.sections import Env

DATES = np.array(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"], dtype="datetime64[D]")


def test_equal_weight_by_hand() -> None:
    returns = np.array([[0.0, 0.0], [0.1, 0.3], [0.2, -0.2], [0.5, 0.1]])
    held = np.array([[True, True], [False, True], [False, False], [True, True]])
    idle = np.array([0.0, 0.01, 0.02, 0.03])
    np.testing.assert_allclose(equal_weight(returns, held, idle), [0, 0.2, -0.2, 0.03])


def test_market_benchmark_is_the_mean_over_yesterdays_tradable_names(sp500: Market) -> None:
    for t in (253, 600, 3000):
        names = sp500.status[t - 1, :-1] == TRADABLE
        assert sp500.benchmark[t] == pytest.approx(sp500.returns[t, :-1][names].mean(), abs=1e-15)
    assert (sp500.benchmark[:253] == 0).all(), "nobody is tradable yet"
    daily = sp500.benchmark[7056:8313]
    assert daily.mean() / daily.std(ddof=1) * 252**0.5 == pytest.approx(0.90, abs=0.01)


def test_own_benchmark_is_aligned_by_date(tmp_path: Path, listing_prices: Prices, small_env: Env) -> None:
    path = tmp_path / "index.csv"
    levels = np.linspace(100, 200, len(listing_prices.dates))
    rows = [f"{day},{level!r}" for day, level in zip(listing_prices.dates, levels.tolist(), strict=True)]
    path.write_text("\n".join(("date,level", "1999-12-31,7", *rows)))
    market = market_of(listing_prices, small_env.model_copy(update={"benchmark": str(path)}))
    np.testing.assert_allclose(market.benchmark[1:], levels[1:] / levels[:-1] - 1)
    assert market.benchmark[0] == 0


@pytest.mark.parametrize(
    ("text", "place", "wrong"),
    [
        ("date,level\n2020-01-02,1\n2020-01-06,2\n2020-01-07,3\n", "3:level", "no level for 2020-01-03"),
        ("date,level\n2020-01-02,1\n2020-01-03,2\n2020-01-06,2\n", "4:level", "no level for 2020-01-07"),
        ("date,level\n2020-01-02,1\n2020-01-03,0\n", "3:level", "level 0 is not positive"),
        ("date,level\n2020-01-02,1\n2020-01-03,\n", "3:level", "a blank level"),
        ("date,level,other\n2020-01-02,1,1\n", "1:other", "more than two columns"),
        ("date,level\n2020-01-02,x\n", "2:level", "'x' is not a number"),
        ("date,level\n2020-01-02,1e308\n", "2:level", "level 1e+308 is outside 1e-06 ... 1e+09"),
    ],
)
def test_malformed_benchmark(text: str, place: str, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        own_benchmark(path, DATES)
    assert str(caught.value).startswith(f"env.benchmark={path}:{place}: {wrong}")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cash_yield_as_a_number() -> None:
    daily = cash_returns(0.05, DATES)
    assert daily[0] == 0
    assert (1 + daily[1]) ** 252 == pytest.approx(1.05)
    with pytest.raises(ConfigError, match=r"env\.cash_yield=5: not a yearly fraction; write 5 % as 0\.05"):
        cash_returns(5.0, DATES)


def test_cash_yield_uses_the_rate_published_by_the_day_before(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("date,rate\n2019-12-31,0.01\n2020-01-03,0.02\n2020-01-05,0.03\n2020-01-07,0.09\n")
    yearly = (1 + cash_returns(str(path), DATES)) ** 252 - 1
    np.testing.assert_allclose(yearly, [0, 0.01, 0.02, 0.03], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,rate\n2020-01-03,0.01\n", "2:rate: no rate on or before 2020-01-02"),
        ("date,rate\n2020-01-02,5\n", "2:rate: rate 5 is not a yearly fraction; write 5 % as 0.05"),
    ],
)
def test_malformed_cash_yield(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        cash_returns(str(path), DATES)
    assert str(caught.value).startswith(f"env.cash_yield={path}:{message}")


def test_a_whole_number_is_a_rate_and_never_a_file() -> None:
    for text in ("0", "5", "-1"):
        cash_yield = load("pretrain", [f"env.cash_yield={text}"]).env.cash_yield
        assert type(cash_yield) is float
        assert cash_yield == float(text)
    assert (cash_returns(load("pretrain", ["env.cash_yield=0"]).env.cash_yield, DATES) == 0).all()
    for text in ("5", "-1"):
        with pytest.raises(ConfigError, match=rf"^env\.cash_yield={text}: not a yearly fraction"):
            cash_returns(load("pretrain", [f"env.cash_yield={text}"]).env.cash_yield, DATES)


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    with pytest.raises(DataError, match=r"^env\.cash_yield=.*none\.csv: no such file"):
        cash_returns(str(path), DATES)
    with pytest.raises(DataError, match=r"^env\.benchmark=.*none\.csv: no such file"):
        own_benchmark(path, DATES)


def test_cash_column_earns_the_yield(listing_prices: Prices, small_env: Env) -> None:
    market = market_of(listing_prices, small_env.model_copy(update={"cash_yield": 0.03}))
    np.testing.assert_array_equal(market.returns[:, -1], cash_returns(0.03, market.dates))
    assert market.benchmark[100] == market.returns[100, -1], "1/N of nobody is cash"


@pytest.mark.parametrize(("rebalance", "period"), [("weekly", "W-SUN"), ("monthly", "M")])
def test_decisions_are_the_last_trading_days(rebalance: str, period: str, sp500: Market) -> None:
    days = pd.Series(pd.DatetimeIndex(sp500.dates))
    last = days.groupby(days.dt.to_period(period)).max()
    expected = days.isin(last).to_numpy().copy()
    expected[-1] = False  # Wednesday, 2022-12-28: the week and the month go on
    np.testing.assert_array_equal(decision_days(sp500.dates, rebalance), expected)


def test_every_day_is_one_by_default(sp500: Market) -> None:
    assert sp500.decision.all()


@pytest.mark.parametrize(
    ("last", "weekly", "monthly"),
    [("2020-01-30", False, False), ("2020-01-31", True, True), ("2020-02-28", True, True), ("2020-03-31", False, True)],
)
def test_the_last_row_is_decided_by_the_business_calendar(last: str, weekly: bool, monthly: bool) -> None:
    dates = np.arange(np.datetime64("2020-01-02"), np.datetime64(last) + 1)
    dates = dates[np.is_busday(dates)]
    assert decision_days(dates, "weekly")[-1] == weekly
    assert decision_days(dates, "monthly")[-1] == monthly
