"""Standardisation comes from train rows alone and travels as plain arrays."""

from dataclasses import replace

import numpy as np
import pytest

from finflow.data.features import FeatureScaling
from finflow.data.market import ABSENT, TRADABLE, Fold, Market, make_fold
from finflow.errors import DataError
from finflow.schema.sections import Env


@pytest.fixture(scope="module")
def fold(listing: Market, small_env: Env) -> Fold:
    return make_fold(listing, small_env, "auto")


def test_train_cells_are_standardised(listing: Market, fold: Fold) -> None:
    features, market_features = FeatureScaling.fit(listing, fold).apply(listing)
    assert features.dtype == market_features.dtype == np.float32
    rows = list(fold.train.decisions)
    cells = features[rows][listing.status[rows, :-1] == TRADABLE]
    assert np.abs(cells.mean(axis=0)).max() < 0.02
    assert np.abs(cells.std(axis=0) - 1).max() < 0.05
    assert max(np.abs(features).max(), np.abs(market_features).max()) <= 5
    np.testing.assert_array_equal(market_features[:, -4:], listing.market_features[:, -4:])
    assert (features[listing.status[:, :-1] == ABSENT] == 0).all()


def test_only_train_decisions_are_looked_at(listing: Market, fold: Fold) -> None:
    rng = np.random.default_rng(0)
    outside = np.ones(len(listing.dates), dtype=bool)
    outside[list(fold.train.decisions)] = False
    noisy = replace(
        listing,
        features=np.where(outside[:, None, None], rng.normal(size=listing.features.shape) * 9, listing.features),
        market_features=np.where(
            outside[:, None], rng.normal(size=listing.market_features.shape) * 9, listing.market_features
        ),
        status=np.where(outside[:, None], TRADABLE, listing.status),
    )
    before, after = FeatureScaling.fit(listing, fold).to_arrays(), FeatureScaling.fit(noisy, fold).to_arrays()
    for name, values in before.items():
        assert values.tobytes() == after[name].tobytes(), name
    inside = listing.features.copy()
    inside[fold.train.decisions[-1]] += 1
    assert FeatureScaling.fit(replace(listing, features=inside), fold).mean.tobytes() != before["mean"].tobytes()


def test_untradable_cells_do_not_count(listing: Market, fold: Fold) -> None:
    status = listing.status.copy()
    status[:, 0] = 1
    features = listing.features.copy()
    features[:, 0] = 1e6
    scaling = FeatureScaling.fit(replace(listing, status=status, features=features), fold)
    assert np.abs(scaling.mean).max() < 10


def test_a_constant_is_not_blown_up(listing: Market, fold: Fold) -> None:
    features = listing.features.copy()
    features[:, :, 0] = 3.0
    market = replace(listing, features=features)
    assert (FeatureScaling.fit(market, fold).apply(market)[0][900, :, 0] == 0).all()


def test_round_trip_and_refusal(listing: Market, sp500: Market, fold: Fold) -> None:
    scaling = FeatureScaling.fit(listing, fold)
    again = FeatureScaling.from_arrays(scaling.to_arrays())
    assert again.apply(listing)[0].tobytes() == scaling.apply(listing)[0].tobytes()
    with pytest.raises(DataError, match=r"features: 12 per asset and 10 of the market.*13 and 10"):
        scaling.apply(sp500)
