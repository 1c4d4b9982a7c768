import numpy as np

from finflow.allocators.priors import momentum_scores, momentum_top, momentum_trend

LAST = np.array([399])


def paths(growth, days=400):
    """Straight lines in logs with a small wobble, one name per yearly growth rate."""
    t = np.arange(days)[:, None]
    return np.exp(np.array(growth) * t / 252 + 0.001 * (-1.0) ** t)


def test_score_is_the_return_from_a_year_ago_to_a_month_ago(make_market):
    close = paths([0.1, 0.2])
    close[399 - 20 :, 0] *= 5  # the last month is not looked at
    expected = close[399 - 21] / close[399 - 252] - 1
    np.testing.assert_allclose(momentum_scores(make_market(close), LAST)[0], expected, rtol=1e-14)


def test_top_five_share_equally_and_names_that_are_not_usable_are_passed_over(make_market):
    close = paths([0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    close[200, 0] = np.nan
    np.testing.assert_array_equal(momentum_top(make_market(close), LAST), [[0, 0.2, 0.2, 0.2, 0.2, 0.2, 0]])
    np.testing.assert_array_equal(momentum_top(make_market(close[:, :3]), LAST), [[0, 0.5, 0.5]])


def test_before_a_year_and_in_a_falling_market_there_is_nothing_to_hold(make_market):
    market = make_market(paths([0.5, 0.4]))
    assert momentum_top(market, np.array([251, 252])).sum(axis=1).tolist() == [0, 1]
    assert not momentum_trend(make_market(paths([-0.5, -0.1, -0.2, -0.3, -0.4, -0.6])), LAST).any()


def test_trend_filter_leaves_the_share_of_a_name_that_broke_to_cash(make_market):
    close = paths([0.7, 0.6, 0.5, 0.4, -0.3, -0.9])
    close[395:, 1] *= 0.4  # best but one by momentum, and now below its mean of 200 days
    np.testing.assert_array_equal(momentum_trend(make_market(close), LAST), [[0.2, 0, 0.2, 0.2, 0, 0]])


def test_trend_filter_wants_a_positive_year_as_well(make_market):
    t = np.arange(400)
    v_shaped = np.where(t < 280, np.exp(-0.01 * t), np.exp(-2.8 + 0.006 * (t - 280)))  # above its mean, under last year
    close = np.column_stack([paths([0.3])[:, 0], v_shaped * (1 + 0.001 * (-1.0) ** t)])
    assert close[399, 1] > close[200:400, 1].mean()
    np.testing.assert_array_equal(momentum_trend(make_market(close), LAST), [[0.5, 0]])
