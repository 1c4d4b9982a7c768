from dataclasses import replace

import numpy as np

from finflow.allocators.priors import (
    equal_weight_returns,
    ewma_volatility,
    rolling_drawdown,
    rolling_mean,
    shrunk_means,
)
from finflow.data.market import FROZEN


def test_ewma_is_its_closed_form_and_a_frozen_price_leaves_it(walk):
    squares = walk.returns[1:101, 0] ** 2
    weights = 0.97 ** np.arange(99, -1, -1) * np.where(np.arange(100) == 0, 1, 0.03)
    np.testing.assert_allclose(ewma_volatility(walk, 0.97)[100, 0], np.sqrt(weights @ squares), rtol=1e-12)
    returns, status = walk.returns.copy(), walk.status.copy()
    returns[101:110, 0] = 0
    status[101:110, 0] = FROZEN
    still = ewma_volatility(replace(walk, returns=returns, status=status), 0.97)
    assert (still[101:110, 0] == still[100, 0]).all()


def test_equal_weight_holds_what_was_tradable_the_day_before(gappy):
    ours = equal_weight_returns(gappy)
    np.testing.assert_allclose(ours[50], gappy.returns[50, [0, 2, 3, 4, 5]].mean())
    np.testing.assert_allclose(ours[301], gappy.returns[301, [0, 1, 2, 4, 5]].mean())  # 1 listed, 3 frozen
    np.testing.assert_allclose(ours[500], gappy.returns[500, [0, 1, 2, 3, 4, 5]].mean())  # the delisting is borne
    assert ours[0] == 0


def test_drawdown_by_hand_forgets_highs_older_than_its_window():
    returns = np.array([0, 1.0, -0.5, 0.2, 0, 0])
    np.testing.assert_allclose(rolling_drawdown(returns, 2), [0, 0, 0.5, 0.4, 0, 0], atol=1e-12)
    assert np.isfinite(rolling_drawdown(np.array([0, -1.0, 0]), 2)).all()


def test_rolling_mean_counts_only_what_counts():
    values, counted = np.array([[1.0], [9], [3], [5]]), np.array([[True], [False], [True], [True]])
    np.testing.assert_allclose(rolling_mean(values, counted, 2)[:, 0], [1, 1, 3, 4])
    assert np.isnan(rolling_mean(values, np.zeros_like(counted), 2)).all()


def test_means_are_shrunk_as_jorion_says(walk):
    rows, t = np.array([600]), 600
    sample = walk.returns[1 : t + 1, :6].mean(axis=0)
    covariance = np.cov(walk.returns[349 : t + 1, :6].T)
    spread = sample - sample.mean()
    form = 600 * spread @ np.linalg.inv(covariance) @ spread
    expected = sample.mean() + form / (6 + 2 + form) * spread  # all names all the time: 1/N's mean is the mean of means
    ours = shrunk_means(walk)(rows, covariance[None], np.ones((1, 6), dtype=np.bool_))[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    masked = shrunk_means(walk)(rows, covariance[None], np.arange(6)[None] < 3)[0]
    assert (masked[3:] == 0).all()
    assert (masked[:3] != 0).all()


def test_means_are_in_excess_of_the_cash_of_their_own_days(make_market, walk):
    close = walk.close.copy()
    close[:300, 1] = np.nan
    market = make_market(close)
    returns = market.returns.copy()
    returns[1:301, 6] = 1e-3  # what cash paid before name 1 was there is no hurdle for it
    rows, mask, variance = np.array([650]), np.ones((1, 6), dtype=np.bool_), 4e-4
    ours = shrunk_means(replace(market, returns=returns))(rows, variance * np.eye(6)[None], mask)[0]
    first = np.array([1, 301, 1, 1, 1, 1])
    own = np.array([(returns[f:651, i] - returns[f:651, 6]).mean() for i, f in enumerate(first)])
    spread, length = own - own.mean(), (651 - first).mean()
    form = length * spread @ spread / variance
    np.testing.assert_allclose(ours - ours.mean(), form / (8 + form) * spread, rtol=1e-9)
    np.testing.assert_allclose(ours.mean(), (equal_weight_returns(market)[1:651] - returns[1:651, 6]).mean(), rtol=1e-9)
