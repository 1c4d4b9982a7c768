"""A user's own signals: lagged, laid over the prices' days and names, or refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.data.build import market_of
from finflow.data.features import SIGNAL, group_of
from finflow.data.prices import Prices
from finflow.data.series import add_signals
from finflow.errors import DataError
from finflow.schema.sections import Env

Folder = Callable[..., Path]


@pytest.fixture
def prices() -> Prices:
    days = pd.bdate_range("2020-01-01", periods=8)
    close = 100 + np.arange(24, dtype=np.float64).reshape(8, 3) % 7
    return Prices(days.to_numpy().astype("datetime64[D]"), ("AA", "BB", "CC"), close)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Write CSVs by name; values [T, columns] on the days of the prices by default."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text)
        return tmp_path

    return write


def csv(values: np.ndarray, names: str = "AA,BB,CC", first: str = "2020-01-01") -> str:
    days = pd.bdate_range(first, periods=len(values)).strftime("%Y-%m-%d")
    cells = [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in values]
    return "\n".join([f"date,{names}", *(f"{day},{row}" for day, row in zip(days, cells, strict=True))]) + "\n"


def env_with(env: Env, path: Path, lag: int = 1) -> Env:
    return env.model_copy(update={"signals": str(path), "signals_lag": lag})


GRID = np.arange(24, dtype=np.float64).reshape(8, 3) / 10 - 1


@pytest.mark.parametrize("lag", [0, 1, 3, 8, 9])
def test_a_value_is_used_so_many_closes_after_its_date(
    lag: int, prices: Prices, small_env: Env, folder: Folder
) -> None:
    found = add_signals(prices, env_with(small_env, folder(value=csv(GRID)), lag)).signals["value"]
    expected = np.full(GRID.shape, np.nan)
    expected[lag:] = GRID[: max(len(GRID) - lag, 0)]
    np.testing.assert_array_equal(found, expected)


def test_columns_may_stand_in_any_order_and_files_are_signals_by_name(
    prices: Prices, small_env: Env, folder: Folder
) -> None:
    path = folder(value=csv(GRID[:, ::-1], "CC,BB,AA"), growth=csv(-GRID))
    found = add_signals(prices, env_with(small_env, path, 0))
    assert list(found.signals) == ["growth", "value"]
    np.testing.assert_array_equal(found.signals["value"], GRID)
    np.testing.assert_array_equal(found.signals["growth"], -GRID)
    assert found.warnings == ()
    alone = add_signals(prices, env_with(small_env, path / "value.csv", 0))
    assert list(alone.signals) == ["value"]


def test_what_is_missing_or_not_used_is_said_once(prices: Prices, small_env: Env, folder: Folder) -> None:
    kept = GRID.copy()
    kept[4, 1] = np.nan
    text = csv(kept[:, :2], "AA,ZZ").splitlines()
    del text[3]
    text.insert(3, "2020-01-04,9,9")  # a Saturday
    found = add_signals(prices, env_with(small_env, folder(value="\n".join(text)), 0))
    expected = np.full(GRID.shape, np.nan)
    expected[:, 0] = kept[:, 0]
    expected[2, 0] = np.nan
    np.testing.assert_array_equal(found.signals["value"], expected)
    said = " | ".join(found.warnings)
    for part in (
        "signal value: 1 columns are not among the prices (ZZ); not used",
        "2 names have no column (BB, CC)",
        "1 rows are on days without prices (2020-01-04 the first)",
        "no row for 1 days of the prices (2020-01-03 the first)",
    ):
        assert part in said
    assert len(found.warnings) == 4


def test_rows_before_and_after_the_prices_are_no_news(prices: Prices, small_env: Env, folder: Folder) -> None:
    long = np.arange(36, dtype=np.float64).reshape(12, 3) - 18
    found = add_signals(prices, env_with(small_env, folder(value=csv(long, first="2019-12-30")), 0))
    np.testing.assert_array_equal(found.signals["value"], long[2:10])
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [(1e-5 * GRID, "too small to be scaled up"), (np.where(GRID > 1, np.nan, GRID + 100), "centre the signal at 0")],
)
def test_a_scale_that_misleads_is_said(
    values: np.ndarray, said: str, prices: Prices, small_env: Env, folder: Folder
) -> None:
    (line,) = add_signals(prices, env_with(small_env, folder(value=csv(values)))).warnings
    assert said in line


BLANK = np.full((8, 3), np.nan)
MALFORMED = {
    "constant": (csv(np.full((8, 3), 2.0)), ":2:AA: 2 in every cell, a constant says nothing"),
    "constant but for other days": (
        csv(np.where(np.arange(24).reshape(8, 3) < 3, 3.0, 2.0), first="2019-12-31"),
        ": 2 in every cell",
    ),
    "all blank": (csv(BLANK), ":2:AA: no value on any day"),
    "no name in common": (csv(GRID, "X,Y,Z"), ":1:X: no column is one of the prices' names, AA, BB, CC"),
    "no day in common": (csv(GRID, first="2010-01-01"), ":2:date: 2010-01-01 to 2010-01-12 share no day"),
    "huge": (csv(np.where(GRID > 1.25, 1e30, GRID)), ":9:CC: value 1e+30 is beyond 1e+09; scale the signal down"),
    "text": (csv(GRID).replace("-1.0", "high"), ":2:AA: 'high' is not a number"),
    "NaN in words": (csv(GRID).replace("-1.0", "nan"), ":2:AA: 'nan' is not a number"),
    "no date": (csv(GRID).replace("2020-01-02", "02/01/2020"), ":3:date: '02/01/2020' is not a date"),
    "a day twice": (csv(GRID).replace("2020-01-03", "2020-01-02"), ":4:date: date 2020-01-02 stands on line 3"),
    "a name twice": (csv(GRID, "AA,AA,CC"), ":1:AA: column 'AA' stands twice"),
    "a future day": (csv(GRID, first="2099-01-01"), ":2:date: date 2099-01-01 is in the future"),
    "empty": ("", ":1:1: the file is empty"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_get_one_line(name: str, prices: Prices, small_env: Env, folder: Folder) -> None:
    text, said = MALFORMED[name]
    path = folder(value=text) / "value.csv"
    with pytest.raises(DataError) as caught:
        add_signals(prices, env_with(small_env, path, 0))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"env.signals={path}:")
    assert said in str(caught.value)


def test_a_missing_path_an_empty_folder_and_odd_names_are_refused(
    prices: Prices, small_env: Env, folder: Folder, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    for path, said in (
        (tmp_path / "x.csv", "no such file"),
        (tmp_path / "none", "no .csv in this folder"),
        (folder(**{"my value": csv(GRID)}), "names the signal 'my value'"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            add_signals(prices, env_with(small_env, path))
        assert str(caught.value).startswith("env.signals=")


def test_signals_are_features_of_their_own_group_and_part_of_the_fingerprint(
    listing_prices: Prices, small_env: Env, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=listing_prices.close.shape)
    table = pd.DataFrame(values, index=[str(day) for day in listing_prices.dates], columns=list(listing_prices.tickers))
    table.to_csv(tmp_path / "value.csv", index_label="date")
    market, bare = (
        market_of(add_signals(listing_prices, env_with(small_env, tmp_path / "value.csv")), small_env),
        market_of(listing_prices, small_env),
    )
    assert market.feature_names == (*bare.feature_names, "signal:value")
    assert group_of("signal:value") == SIGNAL
    assert market.fingerprint != bare.fingerprint
    seen = bare.features[1:, :, 0] != 0  # a return feature, which is 0 only where the name is not live yet
    np.testing.assert_array_equal(market.features[1:, :, -1][seen], values[:-1][seen].astype(np.float32))


def test_a_name_that_the_source_uses_is_refused(listing_prices: Prices, small_env: Env, folder: Folder) -> None:
    with pytest.raises(DataError, match="a signal called planted of its own; rename the file"):
        add_signals(listing_prices, env_with(small_env, folder(planted=csv(GRID))))
