from dataclasses import fields, replace

import numpy as np
import pytest

from finflow.allocators.priors import (
    DEEPEST_DRAWDOWN,
    EXPERTS,
    PRIORS,
    TARGET_VOLATILITY,
    invested_share,
    momentum_trend,
    prior_portfolios,
    scale_to,
)
from finflow.data.market import ABSENT, TRADABLE, Market


@pytest.fixture(scope="module")
def real(sp500):
    """A stretch of the real market with the crises of 2008 and 2020 in it, and its priors."""
    market = cut(sp500, 4300, 8313)
    return market, prior_portfolios(market)


def cut(market: Market, start: int, stop: int) -> Market:
    arrays = {f.name: getattr(market, f.name) for f in fields(Market)}
    return replace(market, **{k: v[start:stop] for k, v in arrays.items() if isinstance(v, np.ndarray)})


def test_every_prior_is_a_portfolio_of_tradable_names(real, gappy):
    for market, weights in (real, (gappy, prior_portfolios(gappy))):
        assert weights.shape == (len(market.dates), len(EXPERTS), market.n)
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=2), 1, atol=1e-12)
        assert (weights.transpose(0, 2, 1)[market.status != TRADABLE] == 0).all()
        assert (weights[:252, :-1, -1] == 1).all()  # no year behind them yet: all in cash
        open_ = (market.status == TRADABLE)[:, :-1]
        equal = open_ / np.maximum(open_.sum(1, keepdims=True), 1)
        np.testing.assert_allclose(weights[:, -1, :-1], equal)  # the last is 1/N from the first day on
    assert weights[300:, 0, 0].min() > 0


def test_no_usable_name_means_all_cash(gappy):
    status = gappy.status.copy()
    status[400:, :-1] = ABSENT
    assert (prior_portfolios(replace(gappy, status=status))[400:, :, -1] == 1).all()


def test_priors_are_five_different_portfolios(real):
    weights = real[1][252:]
    distance = np.abs(weights[:, :, None] - weights[:, None]).sum(axis=3).mean(axis=0)
    pairs = distance[np.triu_indices(len(EXPERTS), 1)]
    assert pairs.min() > 0.6  # of 2; measured .78 (volatility and defensive) on all rows
    assert pairs.mean() > 1.2  # measured 1.38


def test_each_prior_does_what_it_is_named_for(real):
    market, weights = real
    held = weights[300:-1]
    earned = (held * market.returns[301:, None]).sum(axis=2)
    yearly = dict(zip(EXPERTS, earned.std(axis=0) * np.sqrt(252), strict=True))
    assert abs(yearly["volatility"] - TARGET_VOLATILITY) < 0.02
    assert yearly["defensive"] < yearly["volatility"] < yearly["correlation"] < yearly["growth"]
    bottom = int(np.searchsorted(market.dates, np.datetime64("2020-03-20")))
    calm = int(np.searchsorted(market.dates, np.datetime64("2019-12-20")))
    cash = weights[:, :, -1]
    for k in (PRIORS.index("volatility"), PRIORS.index("momentum"), PRIORS.index("defensive")):
        assert cash[bottom, k] > cash[calm, k] + 0.3
    top = momentum_trend(market, np.array([calm]))[0]
    np.testing.assert_allclose(weights[calm, PRIORS.index("momentum"), :-1], top, atol=1e-15)


def test_scaling_is_down_only_and_exact():
    weights, covariance = np.array([[0.5, 0.5], [0.5, 0.5]]), np.stack([np.eye(2), 1e-6 * np.eye(2)])
    scaled = scale_to(0.1, weights, covariance)
    np.testing.assert_allclose(np.sqrt((scaled[0] ** 2).sum()), 0.1)
    assert (scaled[1] == weights[1]).all()


def test_invested_share_falls_with_volatility_and_drawdown(make_market):
    def share(daily_returns):
        close = np.cumprod(1 + np.asarray(daily_returns))[:, None] * np.ones((1, 2))
        return invested_share(make_market(close))

    wobble = np.tile([0.001, -0.001], 100)
    assert (share(wobble) > 0.99).all()
    fall = np.concatenate([wobble, [-0.2], np.zeros(30)])  # a month later only the drawdown is left
    np.testing.assert_allclose(share(fall)[-1], 1 - 0.2 / DEEPEST_DRAWDOWN, atol=0.01)
    doubled = np.concatenate([wobble, np.tile([0.02, -0.02], 15)])
    expected = 0.15 / (np.tile([0.02, -0.02], 11)[:21].std(ddof=1) * np.sqrt(252))
    assert share(doubled)[-1] == pytest.approx(expected * (1 - 0.02 / DEEPEST_DRAWDOWN), rel=0.02)


def spoil(market: Market, t: int, how: str) -> Market:
    """Everything after row t made different."""
    rng = np.random.default_rng(t)
    close, returns, status = market.close.copy(), market.returns.copy(), market.status.copy()
    if how == "cut":
        return cut(market, 0, t + 1)
    if how == "nan":
        close[t + 1 :], returns[t + 1 :], status[t + 1 :, :-1] = np.nan, np.nan, ABSENT
    elif how == "scale":
        close[t + 1 :] *= 7.0
        returns[t + 1 :] *= -3.0
    else:
        order = t + 1 + rng.permutation(len(close) - t - 1)
        close[t + 1 :], returns[t + 1 :], status[t + 1 :] = close[order], returns[order], status[order]
    return replace(market, close=close, returns=returns, status=status)


@pytest.mark.parametrize("how", ["cut", "nan", "scale", "shuffle"])
def test_the_future_changes_no_bit_of_the_past(gappy, how):
    weights = prior_portfolios(gappy)
    for t in (0, 120, 252, 299, 399, 400, 455, 499, 552, 600, 640, 698):
        np.testing.assert_array_equal(prior_portfolios(spoil(gappy, t, how))[: t + 1], weights[: t + 1])


@pytest.mark.parametrize("how", ["cut", "nan", "shuffle"])
def test_the_future_changes_no_bit_on_real_prices(real, how):
    market, weights = real
    for t in np.random.default_rng(5).integers(260, len(weights) - 1, 2):
        np.testing.assert_array_equal(prior_portfolios(spoil(market, int(t), how))[: t + 1], weights[: t + 1])


def test_cache_returns_the_same_bits_and_knows_another_market(walk, tmp_path):
    first = prior_portfolios(walk, tmp_path)
    unread = replace(walk, returns=np.full_like(walk.returns, np.nan))
    assert (prior_portfolios(unread, tmp_path) == first).all()
    other = replace(cut(walk, 0, 400), fingerprint="another")
    assert prior_portfolios(other, tmp_path).shape == (400, 6, 7)
