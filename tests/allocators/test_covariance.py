import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from finflow.allocators import priors
from finflow.allocators.priors import ledoit_wolf, rolling_covariance, rolling_volatility, usable_names


@pytest.mark.parametrize("names", [[0, 1, 2, 3, 4, 5], [1, 4], [2]])
def test_equals_sklearn_on_the_names_in_the_mask(walk, names):
    mask = np.isin(np.arange(6), names)
    window = walk.returns[100:352, :6]
    ours = ledoit_wolf(window[None], mask[None])[0]
    oracle = LedoitWolf().fit(window[:, names]).covariance_
    np.testing.assert_allclose(ours[np.ix_(names, names)], oracle, rtol=1e-12, atol=1e-20)
    assert (ours[~mask] == np.eye(6)[~mask]).all()
    assert (ours[:, ~mask] == np.eye(6)[:, ~mask]).all()


def test_window_ends_at_the_row_and_is_a_year_long(sp500):
    rows = np.array([3000, 8312])
    ours, mask = rolling_covariance(sp500, rows)
    assert mask.all()
    for i, t in enumerate(rows):
        oracle = LedoitWolf().fit(sp500.returns[t - 251 : t + 1, :20]).covariance_
        np.testing.assert_allclose(ours[i], oracle, rtol=1e-11, atol=1e-18)
    np.testing.assert_allclose(rolling_volatility(sp500, rows)[1], sp500.returns[8061:8313, :20].std(axis=0, ddof=1))


def test_size_of_chunks_changes_no_bit(walk, monkeypatch):
    rows = np.arange(300, 360)
    whole = rolling_covariance(walk, rows)[0]
    monkeypatch.setattr(priors, "CHUNK_BYTES", 4 * 8 * 252 * 6 * 7)
    assert (rolling_covariance(walk, rows)[0] == whole).all()


def test_usable_needs_a_status_a_whole_window_and_movement(gappy):
    usable = usable_names(gappy, np.arange(700))
    first = [252, 552, 252, 252, 252, 252]  # the window needs 253 prices: rows t - 252 to t
    assert not usable[:252].any()
    assert [int(np.flatnonzero(usable[:, i])[0]) for i in (0, 1, 2, 4, 5)] == [first[i] for i in (0, 1, 2, 4, 5)]
    assert not usable[500:, 2].any()
    assert not usable[690:, 4].any()
    # Name 3 stands still on rows 101-399: tradable again at 400, believed once half of its window moves.
    assert int(np.flatnonzero(usable[:, 3])[0]) == 399 + 126


def test_no_rows_before_a_window_are_usable_even_at_the_border(walk):
    assert usable_names(walk, np.array([0, 251, 252])).any(axis=1).tolist() == [False, False, True]
