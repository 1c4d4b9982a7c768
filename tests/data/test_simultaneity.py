"""Closes taken at other hours are told from prices alone; honest signals and ordinary prices are not."""

import re

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market, market_of
from finflow.data.market import Market, make_fold
from finflow.data.prices import Prices, faded_warnings, split_ratios
from finflow.schema.sections import Env

DAYS, NAMES = 1400, 12


def world(late: bool, days: int = DAYS) -> Prices:
    """Half of the markets close hours after the others: the common move reaches the early ones a day later."""
    rng = np.random.default_rng(0)
    common, own = rng.normal(0, 0.008, days + 1), rng.normal(0, 0.008, (days, NAMES))
    moves = own + common[1:, None]
    if late:
        moves[:, : NAMES // 2] = own[:, : NAMES // 2] + common[:-1, None]
    dates = np.busday_offset(np.datetime64("2010-01-04"), np.arange(days), roll="forward").astype("datetime64[D]")
    return Prices(dates, tuple(f"M{k}" for k in range(NAMES)), 100 * np.exp(moves.cumsum(axis=0)))


@pytest.fixture(scope="module")
def env() -> Env:
    return load("pretrain", ["env=csv", "env.path=p.csv"]).env


def test_late_closes_are_flagged_and_simultaneous_ones_are_not(env: Env) -> None:
    market = market_of(world(late=True), env)
    (found,) = faded_warnings(market, make_fold(market, env, "auto").train)
    first, second = (float(text) for text in re.findall(r"[+-]\d\.\d{3}", found))
    assert abs(first) > 0.05
    assert abs(second) < abs(first) / 3
    assert found.startswith("closes may not be simultaneous: ")
    market = market_of(world(late=False), env)
    assert faded_warnings(market, make_fold(market, env, "auto").train) == ()


def test_the_embedded_prices_and_planted_alpha_are_not_flagged(sp500: Market, sp500_env: Env) -> None:
    assert faded_warnings(sp500, make_fold(sp500, sp500_env, "auto").train) == ()
    planted = load("pretrain", ["env=synthetic", "env.synthetic.days=2600", "env.synthetic.ic=0.2"]).env
    market = build_market(planted)
    assert faded_warnings(market, make_fold(market, planted, "auto").train) == ()


def test_the_test_window_is_not_looked_at(env: Env) -> None:
    prices = world(late=True)
    market = market_of(prices, env)
    fold = make_fold(market, env, "auto")
    noise = prices.close.copy()
    noise[fold.train.stop :] = 100.0 + np.random.default_rng(1).random(noise[fold.train.stop :].shape)
    other = market_of(Prices(prices.dates, prices.tickers, noise), env)
    assert faded_warnings(other, fold.train) == faded_warnings(market, fold.train)


def test_hit_rate_and_false_alarms_of_splits_are_those_of_the_docs(sp500_prices: Prices) -> None:
    close, dates = sp500_prices.close, sp500_prices.dates
    first = int(np.searchsorted(dates, np.datetime64("1995-01-03")))
    found = split_ratios(close)[first:]
    assert int(np.isfinite(found).sum()) == 18
    assert found.size == 140_960
    rng = np.random.default_rng(0)
    for ratio, least in ((1 / 2, 0.97), (2 / 3, 0.95), (3 / 4, 0.88), (1 / 10, 0.95), (2.0, 0.95), (3 / 2, 0.92)):
        hits = 0
        for k in range(60):
            column, row = k % close.shape[1], int(rng.integers(first + 70, len(close) - 70))
            around = close[row - 70 : row + 71].copy()
            around[70:, column] *= ratio
            hits += bool(np.isclose(split_ratios(around)[70, column], ratio))
        assert hits / 60 >= least, ratio
