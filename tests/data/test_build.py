"""A market's identity and its cache: what shapes it changes its name, what is damaged is built anew."""

import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from finflow.data import features
from finflow.data.build import market_of, prefix_fingerprint
from finflow.data.market import Market
from finflow.data.prices import Prices
from finflow.errors import StorageError
from finflow.io.weights import cached_arrays
from finflow.schema.sections import Env


@pytest.mark.parametrize(
    "change",
    [
        {"delist_return": -0.5},
        {"min_history": 100},
        {"stale_run": 5},
        {"rebalance": "weekly"},
        {"cash_yield": 0.01},
    ],
)
def test_every_rule_that_shapes_a_market_is_in_its_fingerprint(
    change: dict, listing: Market, listing_prices: Prices, small_env: Env
) -> None:
    assert market_of(listing_prices, small_env.model_copy(update=change)).fingerprint != listing.fingerprint


def test_prices_dates_tickers_and_signals_are_in_the_fingerprint(
    listing: Market, listing_prices: Prices, small_env: Env
) -> None:
    close = listing_prices.close.copy()
    close[700, 0] = np.nextafter(close[700, 0], 1e9)
    signals = {"planted": listing_prices.signals["planted"] + 1e-12}
    changed = [
        replace(listing_prices, close=close),
        replace(listing_prices, dates=listing_prices.dates + 1),
        replace(listing_prices, tickers=("ONE", "FLAT", "GONE", "LATE", "SIX")),
        replace(listing_prices, signals=signals),
        replace(listing_prices, volume=np.ones(close.shape)),
    ]
    prints = {market_of(prices, small_env).fingerprint for prices in changed}
    assert len(prints | {listing.fingerprint}) == 6
    assert market_of(listing_prices, small_env).fingerprint == listing.fingerprint


def test_contents_of_side_files_are_in_the_fingerprint(tmp_path: Path, listing_prices: Prices, small_env: Env) -> None:
    rates = tmp_path / "rates.csv"
    env = small_env.model_copy(update={"cash_yield": str(rates)})
    prints = []
    for rate in ("0.01", "0.02"):
        rates.write_text(f"date,rate\n1999-01-04,{rate}\n")
        prints.append(market_of(listing_prices, env).fingerprint)
    assert prints[0] != prints[1]


def test_costs_and_folds_are_not_part_of_a_market(listing: Market, listing_prices: Prices, small_env: Env) -> None:
    env = small_env.model_copy(update={"cost_bps": 99.0, "start": "2003-01-01", "episode_days": 50})
    assert market_of(listing_prices, env).fingerprint == listing.fingerprint


def test_prefix_fingerprint_sees_changes_up_to_a_day_alone(listing: Market, listing_prices: Prices) -> None:
    until: date = listing.dates[1000].tolist()
    cut = replace(listing_prices, dates=listing_prices.dates[:1001], close=listing_prices.close[:1001])
    assert prefix_fingerprint(listing, until) == prefix_fingerprint(listing_prices, until)
    assert prefix_fingerprint(cut, until) == prefix_fingerprint(listing_prices, until)
    for row, same in ((1000, False), (1001, True)):
        close = listing_prices.close.copy()
        close[row, 0] *= 1.001
        other = prefix_fingerprint(replace(listing_prices, close=close), until)
        assert (other == prefix_fingerprint(listing, until)) == same


def test_market_comes_from_the_cache_and_is_the_same(
    tmp_path: Path, listing: Market, listing_prices: Prices, small_env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    market_of(listing_prices, small_env, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(features, "asset_features", lambda *_: pytest.fail("computed although it was cached"))
    again = market_of(listing_prices, small_env, tmp_path)
    assert again.features.tobytes() == listing.features.tobytes()
    assert again.market_features.tobytes() == listing.market_features.tobytes()


ARRAYS = {
    "a": np.arange(6.0).reshape(2, 3),
    "b": np.array([True, False]),
    "c": np.array([1, -1], dtype=np.int8),
    "d": np.float32([np.nan, 1]),
}


def test_cache_returns_what_was_built(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return ARRAYS

    folder = tmp_path / "deep" / "cache"
    for found in (cached_arrays(folder, "k", make), cached_arrays(folder, "k", make)):
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
            assert found[name].flags.writeable
    assert len(calls) == 1
    assert [p.name for p in folder.iterdir()] == ["k.safetensors"]
    assert cached_arrays(None, "k", make)["a"] is ARRAYS["a"]
    assert len(calls) == 2


def test_every_flipped_bit_is_found_and_built_anew_with_one_warning(tmp_path: Path) -> None:
    cached_arrays(tmp_path, "k", lambda: ARRAYS)
    path = tmp_path / "k.safetensors"
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    places = [3, *range(8, 8 + header, 29), *range(8 + header, len(good), 3)]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 0x04
        path.write_bytes(bytes(bad))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = cached_arrays(tmp_path, "k", lambda: ARRAYS)
        np.testing.assert_array_equal(found["a"], ARRAYS["a"])
        said = [str(w.message) for w in caught]
        assert len(said) == 1, place
        assert said[0].startswith(f"{path}: damaged")
        assert path.read_bytes() == good


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100])
def test_a_file_that_is_none_is_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "k.safetensors"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        cached_arrays(tmp_path, "k", lambda: ARRAYS)
    assert len(path.read_bytes()) > 100


def test_a_truncated_file_and_another_keys_file_are_refused(tmp_path: Path) -> None:
    cached_arrays(tmp_path, "k", lambda: ARRAYS)
    good = (tmp_path / "k.safetensors").read_bytes()
    (tmp_path / "other.safetensors").write_bytes(good)
    (tmp_path / "k.safetensors").write_bytes(good[:-1])
    for key in ("k", "other"):
        with pytest.warns(UserWarning, match="damaged"):
            cached_arrays(tmp_path, key, lambda: {"z": np.zeros(1)})


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"k\.safetensors: cannot be written: disk full; free some space"):
        cached_arrays(tmp_path, "k", lambda: ARRAYS)
    assert list(tmp_path.iterdir()) == []
