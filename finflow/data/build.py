"""From a source of prices, one function for each value of `env.source`, to a `Market`: features, regimes, benchmark.

The synthetic source is made here: calm and turbulent regimes, one common factor, and planted alpha if configured.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finflow.data import features, series
from finflow.data.csv_source import load_csv
from finflow.data.market import CASH, TRADABLE, TRADING_YEAR, Calendar, Floats, Market, calendar_of, decision_days
from finflow.data.prices import Prices, Trading, price_warnings, simple_returns, trading
from finflow.data.snapshot import frozen
from finflow.data.yahoo import load_yahoo
from finflow.errors import ConfigError
from finflow.io.weights import Arrays, cached_arrays, content_hash
from finflow.plugins import chosen
from finflow.schema import part_of
from finflow.schema.fields import Role
from finflow.schema.sections import Env, Regimes, Synthetic
from finflow.seeding import numpy_stream

PLANTED = "planted"
FIRST_DAY = np.datetime64("2000-01-03", "D")
STAY = (0.992, 0.95)
"""Daily probability of staying calm, of staying turbulent: spells of 125 and 20 days on average."""
FACTOR_MEAN = (0.0009, -0.0010)
FACTOR_VOLATILITY = (0.006, 0.014)
"""Per day, calm and turbulent: losses large enough for crisis labels, but recovered within months, not decades."""
IDIOSYNCRATIC_SCALE = (1.0, 1.6)
"""Multiplies each name's own volatility in calm and turbulent days."""


def load_synthetic(env: Env, _: Path | None = None) -> Prices:
    """Draw the market that `env.synthetic`, here `spec`, describes; the same settings give the same bits.

    Log return of name i on day t: beta_i f_t + sigma_i,t e_i,t, where f and sigma switch with a two-state Markov
    chain. With `spec.ic` > 0 a standard AR(1) signal s of persistence `spec.persistence`, known at the close of t, is
    published as the signal `planted`, and e_i,t+1 has the mean ic g_i,t given everything known at the close of t.
    g has unit variance (see `expected`); e has unit variance too.

    `spec.signal: linear` is e_i,t+1 = ic s_i,t + sqrt(1 - ic^2) noise. There past returns are slightly
    informative about s. In the other two markets they are not: the noise is correlated with the innovation of s so
    that returns are uncorrelated with g of their own day and of all later days, as when prices fall because expected
    returns rise.

    Raises
    ------
    ConfigError
        If the information coefficient leaves no room for noise.
    """
    assert env.synthetic is not None, "the schema asks for it"
    spec = env.synthetic
    days, names = spec.days, spec.assets
    turbulent = _chain(spec)
    state = turbulent.astype(np.int64)
    rng = numpy_stream(spec.seed, "synthetic/returns")
    factor = np.take(FACTOR_MEAN, state) + np.take(FACTOR_VOLATILITY, state) * rng.standard_normal(days)
    beta = rng.uniform(0.6, 1.4, names)
    volatility = rng.uniform(0.008, 0.016, names) * np.take(IDIOSYNCRATIC_SCALE, state)[:, None]
    noise = rng.standard_normal((days, names))

    def closes(own: Floats) -> Floats:
        log_returns = beta * factor[:, None] + volatility * own - 0.5 * volatility**2
        log_returns[0] = 0.0
        return 100.0 * np.exp(np.cumsum(log_returns, axis=0))

    signals: dict[str, Floats] = {}
    if spec.ic > 0:
        signal = signals[PLANTED] = _autoregression(spec)
        side = np.ones(days)
        close = closes(_own_returns(spec, signal, side, noise))
        while spec.signal == "regime":  # each pass fixes at least one more day; a few passes fix all
            before, side = side, _side(_labels(close, env.regimes))
            if np.array_equal(side, before):
                break
            close = closes(_own_returns(spec, signal, side, noise))
    else:
        close = closes(noise)
    dates = np.busday_offset(FIRST_DAY, np.arange(days), roll="forward").astype("datetime64[D]")
    tickers = tuple(f"SYN{i:02d}" for i in range(1, names + 1))
    return Prices(dates, tickers, close, signals=signals)


def expected(kind: str, signal: Floats, regime: NDArray[np.int8]) -> Floats:
    """g, the expectation at the close of t of the next day's own returns, over ic, [T, d]: an oracle's scores.

    Parameters
    ----------
    kind : `env.synthetic.signal`. linear: s. nonlinear: (s^2 - 1) / sqrt(2), an even function of unit variance.
        regime: s on days that are labelled volatile or crisis, and -s on all others.
    signal : [T, d] the signal `planted`, s.
    regime : [T] labels of the market.
    """
    return _expected(kind, signal, _side(regime))


def _expected(kind: str, signal: Floats, side: Floats) -> Floats:
    if kind == "nonlinear":
        return (signal**2 - 1.0) / math.sqrt(2.0)
    return side[:, None] * signal if kind == "regime" else signal


def _side(regime: NDArray[np.int8]) -> Floats:
    return np.where((regime == features.VOLATILE) | (regime == features.CRISIS), 1.0, -1.0)


def _labels(close: Floats, rules: Regimes) -> NDArray[np.int8]:
    """[T] the labels that `data/build.py` will give to a market of these closes."""
    index = series.equal_weight(simple_returns(close, 0.0), np.ones(close.shape, dtype=np.bool_), np.zeros(len(close)))
    index[0] = np.nan
    return features.label_regimes(index, rules)[0]


def _own_returns(spec: Synthetic, signal: Floats, side: Floats, noise: Floats) -> Floats:
    """[T, d] own returns e, standardised; `side` [T] is the signal's sign by regime."""
    own, mean = noise.copy(), _expected(spec.signal, signal, side)[:-1]
    if spec.signal == "linear":
        own[1:] = spec.ic * mean + math.sqrt(1 - spec.ic**2) * own[1:]
        return own
    p, q = spec.persistence, math.sqrt(1 - spec.persistence**2)
    news = (signal[1:] - p * signal[:-1]) / q
    # The correlation of e with the day's innovation follows from cov(g_t, e_t) = 0, which makes it 0 for all later g
    # too. For the even function: E[g_t g_t-1] = p^2, and E[g_t sgn(s_t-1) news_t] = 2 p q / sqrt(pi).
    if spec.signal == "nonlinear":
        news, lean = np.sign(signal[:-1]) * news, -spec.ic * p * math.sqrt(math.pi) / (2 * q)
    else:
        news, lean = side[:-1, None] * news, -spec.ic * p / q
    room = 1.0 - spec.ic**2 - lean**2
    if room <= 0:
        most = spec.ic / math.hypot(spec.ic, lean)
        raise ConfigError(
            f"env.synthetic.ic={spec.ic:g}: leaves no room for noise where env.synthetic.signal={spec.signal} and"
            f" env.synthetic.persistence={p:g}; set it below {most:.3g}"
        )
    own[1:] = spec.ic * mean + lean * news + math.sqrt(room) * own[1:]
    return own


def _chain(spec: Synthetic) -> NDArray[np.bool_]:
    """[T] true on turbulent days."""
    uniform = numpy_stream(spec.seed, "synthetic/regime").random(spec.days)
    turbulent = np.zeros(spec.days, dtype=np.bool_)
    for t in range(1, spec.days):
        stays = uniform[t] < STAY[int(turbulent[t - 1])]
        turbulent[t] = turbulent[t - 1] == stays
    return turbulent


def _autoregression(spec: Synthetic) -> Floats:
    """[T, d] stationary AR(1) of unit variance."""
    noise = numpy_stream(spec.seed, "synthetic/signal").standard_normal((spec.days, spec.assets))
    noise[1:] *= math.sqrt(1 - spec.persistence**2)
    for t in range(1, spec.days):  # scipy.signal would need a second to import
        noise[t] += spec.persistence * noise[t - 1]
    return noise


def load_sp500(env: Env, _: Path | None = None) -> Prices:
    """Adjusted closes of 20 stocks of the S&P 500, 1990-01-02 to 2022-12-28, bundled with skfolio.

    The names are survivors chosen with hindsight, and prices before 1995 are rounded to $.001.
    """
    # The file is read directly: importing skfolio takes longer than importing FinFlow.
    file = distribution("skfolio").locate_file("skfolio/datasets/data/sp500_dataset.csv.gz")
    table = pd.read_csv(str(file), index_col=0)
    dates = table.index.to_numpy().astype("datetime64[D]")
    return Prices(dates, tuple(str(c) for c in table.columns), np.ascontiguousarray(table.to_numpy(np.float64)))


Source = Callable[[Env, Path | None], Prices]
"""Settings, and the folder where a download may be kept (None: nowhere) -> prices, all names and days there are."""

SOURCES: dict[str, Source] = {"sp500": load_sp500, "yahoo": load_yahoo, "csv": load_csv, "synthetic": load_synthetic}


def load_prices(env: Env, cache_dir: Path | None = None) -> Prices:
    """Read the prices that `env` names, its tickers up to its last day, with the user's signals and files.

    Parameters
    ----------
    cache_dir : folder where downloads are kept between runs.

    Raises
    ------
    ConfigError
        If there is no such source, or a key that the source needs is missing.
    DataError
        If the prices fail a check or cannot be read.
    StorageError
        If a snapshot is damaged, or it or the cache cannot be written.
    """
    if env.snapshot is not None:
        return frozen(env, lambda: _load(env, cache_dir))
    return _load(env, cache_dir)


def _load(env: Env, cache_dir: Path | None) -> Prices:
    source: Source = chosen("env.source", env.source, SOURCES, "sources")
    prices = source(env, cache_dir)
    if env.tickers is not None:
        unknown = [ticker for ticker in env.tickers if ticker not in prices.tickers]
        if unknown:
            known = ", ".join(prices.tickers)
            raise ConfigError(f"env.tickers: {unknown[0]} is not in the prices; choose among {known}")
        prices = prices.of(env.tickers)
    if env.end is not None:
        if prices.dates[0] > np.datetime64(env.end, "D"):
            raise ConfigError(f"env.end={env.end}: the prices begin on {prices.dates[0]}; set it later")
        prices = prices.on(prices.dates <= np.datetime64(env.end, "D"))
    if env.signals is not None:
        prices = series.add_signals(prices, env)
    return replace(prices, files=series.read_series(env))


FEATURE_VERSION = 1
"""Raise it whenever a formula of features or labels changes, so that weights trained on the old ones are refused."""


def build_market(env: Env, cache_dir: Path | None = None) -> Market:
    """The market that `env` describes; raises as `load_prices`.

    Parameters
    ----------
    cache_dir : folder where downloads and features are kept between runs; None computes them anew.
    """
    return market_of(load_prices(env, cache_dir), env, cache_dir)


def market_of(prices: Prices, env: Env, cache_dir: Path | None = None) -> Market:
    """The market of `prices` under the rules of `env`."""
    calendar = calendar_of(prices.dates, env.periods_per_year)
    state = trading(prices.close, env.stale_run, calendar.rows(env.min_history))
    files = prices.files or series.read_series(env)
    cash = series.cash_returns(env.cash_yield, prices.dates, files.get(series.CASH_YIELD), calendar)
    risky = simple_returns(prices.close, env.delist_return)
    if env.benchmark == series.EQUAL_WEIGHT:
        benchmark = series.equal_weight(risky, state.status == TRADABLE, cash)
    else:
        benchmark = series.own_benchmark(Path(env.benchmark), prices.dates, files.get(series.BENCHMARK))
    history = _history(prices, state, risky, calendar)
    others = features.features_of_plugins(history, env.features)
    fingerprint = _fingerprint(prices, env, files, calendar, others)
    regime, regime_warnings = features.label_regimes(history.index, env.regimes, calendar)
    arrays = cached_arrays(
        cache_dir,
        f"features-{fingerprint}-{_code_hash()}",
        lambda: {
            "features": features.asset_features(history, {**others, **prices.signals}),
            "market_features": features.market_features(history, regime),
        },
    )
    always = np.full((len(prices.dates), 1), TRADABLE, dtype=np.int8)
    return Market(
        dates=prices.dates,
        assets=(*prices.tickers, CASH),
        close=prices.close,
        returns=np.concatenate([risky, cash[:, None]], axis=1),
        status=np.concatenate([state.status, always], axis=1),
        features=arrays["features"],
        feature_names=features.feature_names(prices.signals, others),
        market_features=arrays["market_features"],
        market_feature_names=features.market_feature_names(),
        regime=regime,
        decision=decision_days(prices.dates, env.rebalance, calendar),
        benchmark=benchmark,
        index=history.index,
        fingerprint=fingerprint,
        warnings=(
            *prices.warnings,
            *price_warnings(prices, env, calendar),
            *regime_warnings,
            *series.cash_warnings(cash, calendar),
        ),
        calendar=calendar,
        rebalance=env.rebalance,
    )


def prefix_fingerprint(source: Market | Prices, until: date) -> str:
    """Hash of the dates, tickers and closes up to `until`: unchanged where a file has only grown since."""
    tickers = source.assets[:-1] if isinstance(source, Market) else source.tickers
    rows = int(np.searchsorted(source.dates, np.datetime64(until, "D"), side="right"))
    return _hash(tickers, {"dates": source.dates[:rows].astype(np.int64), "close": source.close[:rows]})


def _history(prices: Prices, state: Trading, risky: Floats, calendar: Calendar) -> features.History:
    """What features may look at; its index is `Market.index`."""
    known = state.live.copy()
    known[:-1] |= state.live[1:] & state.present[:-1]  # the close before a first move is genuine too
    eligible = state.live & ~state.stale
    index = series.equal_weight(risky, eligible, np.zeros(len(risky)))
    index[0] = np.nan
    index[1:][~np.maximum.accumulate(eligible.any(axis=1))[:-1]] = np.nan
    close = np.where(known, prices.close, np.nan)
    return features.History(close, state.live, eligible, index, prices.volume, calendar)


def _fingerprint(
    prices: Prices, env: Env, files: Mapping[str, bytes], calendar: Calendar, others: Mapping[str, features.Array]
) -> str:
    """Hash of everything that shapes the arrays of a market; features of plugins count by their values."""
    market = part_of(env.model_dump(), {Role.MARKET}, "env")
    benchmark, cash_yield = market.pop("benchmark"), market.pop("cash_yield")  # their files are among the arrays
    del market["features"]
    rules = [rule for rule in market.values() if not isinstance(rule, dict)] + [benchmark == series.EQUAL_WEIGHT]
    rules += [rule for section in market.values() if isinstance(section, dict) for rule in section.values()]
    if not isinstance(cash_yield, str):
        rules.append(cash_yield)
    if calendar.year != TRADING_YEAR:  # business days keep the hash of earlier versions
        rules.append(f"{calendar.year} rows a year")
    shape = [FEATURE_VERSION, *features.FEATURES, *features.MARKET_FEATURES, *rules]
    arrays: Arrays = {"dates": prices.dates.astype(np.int64), "close": prices.close}
    if prices.volume is not None:
        arrays["volume"] = prices.volume
    arrays |= {f"{features.SIGNAL_PREFIX}{name}": values for name, values in prices.signals.items()}
    arrays |= {f"feature:{name}": values for name, values in others.items()}
    for number, key in enumerate(series.series_files(env)):
        arrays[f"file:{number}"] = np.frombuffer(files[key], dtype=np.uint8)
    return _hash((*prices.tickers, json.dumps(shape)), arrays)


def _code_hash() -> str:
    """Hash of the code that computes cached arrays, so that an edited feature is never read from an old file."""
    functions = (*features.FEATURES.values(), *features.MARKET_FEATURES.values(), features.label_regimes, trading)
    files = {getattr(sys.modules[f.__module__], "__file__", None) for f in (*functions, series.equal_weight, market_of)}
    digest = hashlib.sha256(f"numpy {np.__version__} pandas {pd.__version__}".encode())
    for file in sorted(f for f in files if f is not None):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:8]


def _hash(words: tuple[str, ...], arrays: Arrays) -> str:
    text = json.dumps([words, content_hash(arrays)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
