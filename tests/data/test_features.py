"""Features against straightforward computations, alive on real prices, bounded, and open to additions."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from finflow.data.build import market_of
from finflow.data.features import FEATURE_GROUPS, FEATURES, feature, group_of
from finflow.data.market import TRADABLE, Market
from finflow.data.prices import Prices
from finflow.schema.sections import Env

NAMES = ("AAPL", "RRC", "XOM")
FROM = 1265
"""1995-01-03, when every name is tradable."""


def frame(market: Market) -> pd.DataFrame:
    return pd.DataFrame(market.close, index=pd.DatetimeIndex(market.dates), columns=list(market.assets[:-1]))


def index_returns(market: Market) -> pd.Series:
    """1/N from 1995 on, where every name is live; earlier rows are left out."""
    return frame(market).pct_change().iloc[FROM:].mean(axis=1)


def of(market: Market, name: str, asset: str) -> np.ndarray:
    return market.features[:, market.assets.index(asset), market.feature_names.index(name)]


def log_returns(price: pd.Series) -> pd.Series:
    return np.log(price).diff()


def sigma(price: pd.Series, days: int) -> pd.Series:
    return log_returns(price).rolling(days).std()


def rsi(price: pd.Series) -> pd.Series:
    """Wilder's recursion, written out."""
    change = price.diff().to_numpy()
    gain = loss = np.nan
    result = []
    for step in change:
        if not np.isnan(step):
            up, down = max(step, 0.0), max(-step, 0.0)
            gain = up if np.isnan(gain) else (13 * gain + up) / 14
            loss = down if np.isnan(loss) else (13 * loss + down) / 14
        result.append((100 - 100 / (1 + gain / loss) - 50) / 50 if loss else np.nan)
    return pd.Series(result, index=price.index)


def macd(price: pd.Series) -> pd.Series:
    """Recursions with the weights 2 / (days + 1), written out."""

    def average(values: list[float], days: int) -> list[float]:
        smooth = [values[0]]
        for value in values[1:]:
            smooth.append(smooth[-1] + 2 / (days + 1) * (value - smooth[-1]))
        return smooth

    logs = np.log(price).tolist()
    line = [fast - slow for fast, slow in zip(average(logs, 12), average(logs, 26), strict=True)]
    histogram = [value - signal for value, signal in zip(line, average(line, 9), strict=True)]
    return pd.Series(histogram, index=price.index) / sigma(price, 63)


def activity(price: pd.Series) -> pd.Series:
    size = log_returns(price).abs()
    return (size - size.rolling(63).mean()) / size.rolling(63).std()


def bollinger(price: pd.Series) -> pd.Series:
    middle, width = price.rolling(20).mean(), 2 * price.rolling(20).std(ddof=0)
    return 2 * (price - (middle - width)) / (2 * width) - 1


EXPECTED: dict[str, Callable[[pd.Series], pd.Series]] = {
    "return_1d": lambda p: log_returns(p) / sigma(p, 63),
    "return_5d": lambda p: np.log(p / p.shift(5)) / 5**0.5 / sigma(p, 63),
    "volatility_ratio": lambda p: np.log(sigma(p, 21)[FROM:] / sigma(p, 252)).reindex(p.index),
    "rsi_14": rsi,
    "macd": macd,
    "bollinger_20": bollinger,
    "activity": activity,
    "drawdown_252": lambda p: p / p.rolling(252).max() - 1,
    "momentum_21": lambda p: np.log(p / p.shift(21)) / (21**0.5 * sigma(p, 63)),
    "momentum_12_1": lambda p: np.log(p.shift(21) / p.shift(252)) / (231**0.5 * sigma(p, 252)),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("asset", NAMES)
def test_feature_equals_its_plain_computation(name: str, asset: str, sp500: Market) -> None:
    expected = EXPECTED[name](frame(sp500)[asset]).to_numpy()
    np.testing.assert_allclose(of(sp500, name, asset)[FROM:], expected[FROM:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("asset", NAMES)
def test_correlation_and_beta(asset: str, sp500: Market) -> None:
    own, market = frame(sp500)[asset].pct_change().iloc[FROM:], index_returns(sp500)
    beta = own.rolling(126).cov(market) / market.rolling(126).var()
    rows = slice(FROM + 126, None)
    np.testing.assert_allclose(of(sp500, "beta_126", asset)[rows], beta[126:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        of(sp500, "correlation_126", asset)[rows], own.rolling(126).corr(market)[126:], rtol=1e-5, atol=1e-6
    )


def test_twelve_features_none_constant_on_real_prices(sp500: Market) -> None:
    assert len(FEATURES) == 12
    assert sp500.feature_names == tuple(FEATURES)
    tradable = sp500.status[:, :-1] == TRADABLE
    for i, name in enumerate(sp500.feature_names):
        for asset in range(20):
            values = sp500.features[tradable[:, asset], asset, i]
            assert values.std() > 0.02, (name, asset)
            assert np.mean(values == 0) < 0.2, (name, asset)
    for i, name in enumerate(sp500.market_feature_names):
        assert sp500.market_features[FROM:, i].std() > 0.02, name


def test_features_are_finite_float32_and_of_order_one(sp500: Market, listing: Market) -> None:
    for market in (sp500, listing):
        for values in (market.features, market.market_features):
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
        assert np.abs(market.features).max() < 20


def test_features_do_not_depend_on_the_scale_of_prices(listing_prices: Prices, listing: Market, small_env: Env) -> None:
    scaled = Prices(
        listing_prices.dates, listing_prices.tickers, listing_prices.close * 1024.0, signals=listing_prices.signals
    )
    np.testing.assert_allclose(market_of(scaled, small_env).features, listing.features, rtol=1e-4, atol=1e-5)


def test_nothing_is_available_before_the_first_move_or_without_a_price(listing: Market) -> None:
    assert (listing.features[:501, 1] == 0).all()
    assert (listing.features[1101:, 2] == 0).all()
    assert (listing.features[:301, 3] == 0).all()
    first = listing.features[752, 1, :12]
    assert (first != 0).sum() >= 11, "every lookback is complete on the first tradable day"


def test_every_lookback_is_complete_on_the_first_tradable_row(sp500: Market) -> None:
    for asset in (a for a in range(20) if sp500.assets[a] != "RRC"):  # its price stands still for days even then
        row = int(np.argmax(sp500.status[:, asset] == TRADABLE))
        for i, name in enumerate(sp500.feature_names):
            assert sp500.features[row : row + 5, asset, i].any() or name == "drawdown_252", (name, asset)


def test_volume_takes_the_place_of_moves(listing_prices: Prices, small_env: Env) -> None:
    volume = np.exp(np.random.default_rng(0).standard_normal(listing_prices.close.shape))
    volume[:, 4] = np.nan
    prices = Prices(listing_prices.dates, listing_prices.tickers, listing_prices.close, volume)
    market = market_of(prices, small_env)
    logs = pd.Series(np.log(volume[:, 0]))
    expected = (logs - logs.rolling(63).mean()) / logs.rolling(63).std()
    np.testing.assert_allclose(of(market, "activity", "ONE")[100:], expected[100:], rtol=1e-4, atol=1e-5)
    without = market_of(listing_prices, small_env)
    np.testing.assert_array_equal(of(market, "activity", "TWO"), of(without, "activity", "TWO"))


def test_signals_are_appended_by_name(listing: Market, listing_prices: Prices) -> None:
    assert listing.feature_names == (*FEATURES, "signal:planted")
    np.testing.assert_array_equal(
        listing.features[600:, 0, -1], listing_prices.signals["planted"][600:, 0].astype(np.float32)
    )


def test_every_feature_has_a_group() -> None:
    assert {group_of(name) for name in FEATURES} == {"returns", "technical", "structure", "momentum"}
    assert set(FEATURE_GROUPS) == set(FEATURES)
    assert group_of("signal:planted") == "signal"


def test_a_feature_can_be_registered(listing_prices: Prices, listing: Market, small_env: Env) -> None:
    try:
        feature("price_above_one", "structure")(lambda history: (history.close > 1).astype(float))
        market = market_of(listing_prices, small_env)
    finally:
        del FEATURES["price_above_one"], FEATURE_GROUPS["price_above_one"]
    assert market.feature_names[12] == "price_above_one"
    assert of(market, "price_above_one", "ONE")[700] == 1
    assert market.fingerprint != listing.fingerprint


def test_market_features_against_plain_computations(sp500: Market) -> None:
    returns, market = np.log(frame(sp500)).diff().iloc[FROM:], index_returns(sp500)
    columns = dict(zip(sp500.market_feature_names, sp500.market_features[FROM:].T, strict=True))
    month, year = (np.log1p(market).rolling(days).std() for days in (21, 252))
    np.testing.assert_allclose(columns["index_volatility"][30:], np.log(month * 252**0.5)[30:], rtol=1e-5)
    np.testing.assert_allclose(
        columns["index_volatility_ratio"][260:], np.log(month / year)[260:], rtol=1e-4, atol=1e-6
    )
    for t in (200, 3000, 7000):
        correlations = np.corrcoef(returns.iloc[t - 125 : t + 1].to_numpy().T)
        assert columns["mean_correlation"][t] == pytest.approx((correlations.sum() - 20) / 380, rel=1e-5)
    price = frame(sp500).iloc[FROM - 200 :]
    above = (price > price.rolling(200).mean()).mean(axis=1).iloc[200:]
    np.testing.assert_allclose(columns["breadth"], above, rtol=1e-6)
    scale = returns.rolling(252).std().shift(1)
    surprise = np.log1p(((returns / scale) ** 2).mean(axis=1))
    np.testing.assert_allclose(columns["turbulence"][260:], surprise[260:], rtol=1e-5)
    wealth = (1 + market).cumprod()
    peak = wealth.cummax()
    np.testing.assert_allclose(columns["index_drawdown"][500:], 1 - (wealth / peak)[500:], rtol=1e-4, atol=1e-6)


def test_one_hot_of_the_regime_counts_unlabelled_days_as_normal(sp500: Market) -> None:
    one_hot = sp500.market_features[:, -4:]
    assert sp500.market_feature_names[-4:] == ("regime:stable", "regime:normal", "regime:volatile", "regime:crisis")
    assert (one_hot.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(one_hot.argmax(axis=1), np.where(sp500.regime < 0, 1, sp500.regime))
