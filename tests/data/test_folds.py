"""Folds: exact rows and dates on real prices, proportions elsewhere, and their way through a file."""

import json
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market, market_of
from finflow.data.csv_source import load_csv
from finflow.data.market import (
    BUSINESS,
    NO_LABEL,
    PURGE,
    TRADABLE,
    Fold,
    Market,
    Window,
    fold_dates,
    fold_from_dates,
    make_fold,
    minimum_rows,
)
from finflow.data.prices import Prices
from finflow.errors import ConfigError, DataError
from finflow.schema.sections import Env

SP500 = {
    "2000": ((1266, 1750), (1771, 2507), (2528, 3280), "2000-01-03", "2002-12-31"),
    "2008": ((1266, 3763), (3784, 4517), (4538, 5043), "2008-01-02", "2009-12-31"),
    "2013": ((1266, 5022), (5043, 5776), (5797, 7056), "2013-01-02", "2017-12-29"),
    "2018": ((1266, 6280), (6301, 7035), (7056, 8313), "2018-01-02", "2022-12-28"),
}


@pytest.mark.parametrize("name", SP500)
def test_rows_and_dates_of_the_real_market(name: str, sp500: Market, sp500_env: Env) -> None:
    train, validation, test, first, last = SP500[name]
    fold = make_fold(sp500, sp500_env, name)
    assert fold == Fold(name, Window(*train), Window(*validation), Window(*test))
    assert fold_dates(sp500, fold)["test"] == [first, last]
    assert str(sp500.dates[fold.train.decisions[0]]) == "1995-01-03", "the first decision, not the first return"
    assert sp500.dates[fold.validation.start].astype("datetime64[Y]").astype(int) + 1970 == int(name) - 3
    assert fold.validation.start - fold.train.stop == PURGE
    assert fold.test.start - fold.validation.stop == PURGE


def test_fold_dates_are_of_the_first_and_last_return() -> None:
    dates = np.arange("2020-01-01", "2020-02-01", dtype="datetime64[D]")
    market = cast(Market, SimpleNamespace(dates=dates))
    fold = Fold("auto", Window(1, 10), Window(12, 20), Window(22, 31))
    assert fold_dates(market, fold) == {
        "name": "auto",
        "train": ["2020-01-02", "2020-01-10"],
        "validation": ["2020-01-13", "2020-01-20"],
        "test": ["2020-01-23", "2020-01-31"],
    }


def test_auto_is_the_last_fold(sp500: Market, sp500_env: Env) -> None:
    assert make_fold(sp500, sp500_env, "auto") == make_fold(sp500, sp500_env, "2018")


def test_without_a_start_training_begins_with_the_first_label(sp500: Market, sp500_env: Env) -> None:
    fold = make_fold(sp500, sp500_env.model_copy(update={"start": None}), "auto")
    assert fold.train.start == 778
    assert sp500.regime[777] != NO_LABEL


def test_proportions(listing: Market, small_env: Env) -> None:
    fold = make_fold(listing, small_env, "auto")
    first = 777  # the first label; names are tradable from row 252 on
    usable = 1400 - first - 1
    assert (listing.regime[first - 1], listing.regime[first] != NO_LABEL) == (NO_LABEL, True)
    assert fold.train.start == first + 1
    assert len(fold.test) == round(0.2 * usable)
    assert fold.test.stop == 1400
    assert len(fold.validation) == round(0.15 * usable) - PURGE
    assert fold.test.start - fold.validation.stop == PURGE
    assert fold.validation.start - fold.train.stop == PURGE


def test_start_is_respected(listing: Market, small_env: Env) -> None:
    start = str(listing.dates[800])
    assert make_fold(listing, small_env.model_copy(update={"start": start}), "auto").train.start == 801


def shortened(prices: Prices, rows: int) -> Prices:
    signals = {name: values[:rows] for name, values in prices.signals.items()}
    return Prices(prices.dates[:rows], prices.tickers, prices.close[:rows], signals=signals)


def test_unlabelled_days_stay_in_where_waiting_would_leave_too_little(listing_prices: Prices, small_env: Env) -> None:
    market = market_of(shortened(listing_prices, 1000), small_env)
    fold = make_fold(market, small_env, "auto")
    assert fold.train.start == 253
    assert market.regime[252] == NO_LABEL


def test_minimum_rows_is_just_enough(small_env: Env, listing_prices: Prices) -> None:
    least = minimum_rows(small_env, BUSINESS)
    assert least == 673
    moving = Prices(listing_prices.dates, ("A", "B"), listing_prices.close[:, [0, 4]])
    fold = make_fold(market_of(shortened(moving, least), small_env), small_env, "auto")
    assert len(fold.train) == 252
    with pytest.raises(DataError, match="fold=auto: train has 251 days, at least 252 are needed"):
        make_fold(market_of(shortened(moving, least - 1), small_env), small_env, "auto")


def test_unknown_fold_lists_the_choices(sp500: Market, listing: Market, sp500_env: Env, small_env: Env) -> None:
    with pytest.raises(ConfigError, match=r"fold='2019'.*choose one of auto, 2000, 2008, 2013, 2018"):
        make_fold(sp500, sp500_env, "2019")
    with pytest.raises(ConfigError, match=r"fold='2018'.*env=synthetic; choose one of auto$"):
        make_fold(listing, small_env, "2018")


def test_late_start_names_the_numbers(listing: Market, sp500: Market, small_env: Env, sp500_env: Env) -> None:
    with pytest.raises(DataError, match="no day from 2030-01-01 on on which 2 names"):
        make_fold(listing, small_env.model_copy(update={"start": "2030-01-01"}), "auto")
    with pytest.raises(DataError, match="fold=2000: train has 0 days, at least 252 are needed"):
        make_fold(sp500, sp500_env.model_copy(update={"start": "1999-01-01"}), "2000")


def test_a_fold_survives_a_file_and_longer_data(listing_prices: Prices, small_env: Env) -> None:
    market = market_of(shortened(listing_prices, 1300), small_env)
    fold = make_fold(market, small_env, "auto")
    stored = json.loads(json.dumps(fold_dates(market, fold)))
    grown = market_of(listing_prices, small_env)
    assert fold_from_dates(grown, stored) == fold
    assert make_fold(grown, small_env, "auto") != fold
    with pytest.raises(DataError, match=r"fold=auto: \S+ is not a day of the prices"):
        fold_from_dates(market_of(shortened(listing_prices, 1299), small_env), stored)


def test_a_csv_makes_the_same_market(tmp_path, listing_prices: Prices, listing: Market, small_env: Env) -> None:
    path = tmp_path / "prices.csv"
    header = ",".join(("Date", *listing_prices.tickers))
    rows = [
        ",".join((str(day), *("" if np.isnan(price) else repr(float(price)) for price in closes)))
        for day, closes in zip(listing_prices.dates, listing_prices.close, strict=True)
    ]
    path.write_text("\n".join((header, *rows)))
    env = load("pretrain", ["env=csv", f"env.path={path}"]).env
    np.testing.assert_array_equal(load_csv(env).close, listing_prices.close)
    market = build_market(env)
    np.testing.assert_array_equal(market.features, listing.features[:, :, :12])
    np.testing.assert_array_equal(market.status, listing.status)
    assert market.warnings == listing.warnings
    assert (market.status[:752, 1] != TRADABLE).all()
