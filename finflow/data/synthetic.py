"""A synthetic market: calm and turbulent regimes, one common factor, and planted alpha if configured."""

import math

import numpy as np
from numpy.typing import NDArray

from finflow.data.market_features import CRISIS, VOLATILE, label_regimes
from finflow.data.prices import Prices, simple_returns
from finflow.data.series import equal_weight
from finflow.errors import ConfigError
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


def load_synthetic(env: Env) -> Prices:
    """Prices of the market that `env.synthetic` describes."""
    assert env.synthetic is not None, "the schema asks for it"
    return make_prices(env.synthetic, env.regimes)


def make_prices(spec: Synthetic, rules: Regimes) -> Prices:
    """Draw a market of `spec.days` business days and `spec.assets` names; the same arguments give the same bits.

    Log return of name i on day t: beta_i f_t + sigma_i,t e_i,t, where f and sigma switch with a two-state Markov
    chain. With `spec.ic` > 0 a standard AR(1) signal s of persistence `spec.persistence`, known at the close of t, is
    published as the signal `planted`, and e_i,t+1 has the mean ic g_i,t given everything known at the close of t.
    g has unit variance (see `expected`); e has unit variance too.

    `spec.signal: linear` is e_i,t+1 = ic s_i,t + sqrt(1 - ic^2) noise. There past returns are slightly
    informative about s. In the other two markets they are not: the noise is correlated with the innovation of s so
    that returns are uncorrelated with g of their own day and of all later days, as when prices fall because expected
    returns rise.

    Parameters
    ----------
    rules : `env.regimes`, by which the market of `spec.signal: regime` labels its days.

    Raises
    ------
    ConfigError
        If the information coefficient leaves no room for noise.
    """
    days, names = spec.days, spec.assets
    turbulent = _chain(spec)
    state = turbulent.astype(np.int64)
    rng = numpy_stream(spec.seed, "synthetic/returns")
    factor = np.take(FACTOR_MEAN, state) + np.take(FACTOR_VOLATILITY, state) * rng.standard_normal(days)
    beta = rng.uniform(0.6, 1.4, names)
    volatility = rng.uniform(0.008, 0.016, names) * np.take(IDIOSYNCRATIC_SCALE, state)[:, None]
    noise = rng.standard_normal((days, names))

    def closes(own: NDArray[np.float64]) -> NDArray[np.float64]:
        log_returns = beta * factor[:, None] + volatility * own - 0.5 * volatility**2
        log_returns[0] = 0.0
        return 100.0 * np.exp(np.cumsum(log_returns, axis=0))

    signals: dict[str, NDArray[np.float64]] = {}
    if spec.ic > 0:
        signal = signals[PLANTED] = _autoregression(spec)
        side = np.ones(days)
        close = closes(_own_returns(spec, signal, side, noise))
        while spec.signal == "regime":  # each pass fixes at least one more day; a few passes fix all
            before, side = side, _side(_labels(close, rules))
            if np.array_equal(side, before):
                break
            close = closes(_own_returns(spec, signal, side, noise))
    else:
        close = closes(noise)
    dates = np.busday_offset(FIRST_DAY, np.arange(days), roll="forward").astype("datetime64[D]")
    tickers = tuple(f"SYN{i:02d}" for i in range(1, names + 1))
    return Prices(dates, tickers, close, signals=signals)


def expected(kind: str, signal: NDArray[np.float64], regime: NDArray[np.int8]) -> NDArray[np.float64]:
    """g, the expectation at the close of t of the next day's own returns, over ic, [T, d]: an oracle's scores.

    Parameters
    ----------
    kind : `env.synthetic.signal`. linear: s. nonlinear: (s^2 - 1) / sqrt(2), an even function of unit variance.
        regime: s on days that are labelled volatile or crisis, and -s on all others.
    signal : [T, d] the signal `planted`, s.
    regime : [T] labels of the market.
    """
    return _expected(kind, signal, _side(regime))


def _expected(kind: str, signal: NDArray[np.float64], side: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "nonlinear":
        return (signal**2 - 1.0) / math.sqrt(2.0)
    return side[:, None] * signal if kind == "regime" else signal


def _side(regime: NDArray[np.int8]) -> NDArray[np.float64]:
    return np.where((regime == VOLATILE) | (regime == CRISIS), 1.0, -1.0)


def _labels(close: NDArray[np.float64], rules: Regimes) -> NDArray[np.int8]:
    """[T] the labels that `data/build.py` will give to a market of these closes."""
    index = equal_weight(simple_returns(close, 0.0), np.ones(close.shape, dtype=np.bool_), np.zeros(len(close)))
    index[0] = np.nan
    return label_regimes(index, rules)[0]


def _own_returns(
    spec: Synthetic, signal: NDArray[np.float64], side: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
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


def _autoregression(spec: Synthetic) -> NDArray[np.float64]:
    """[T, d] stationary AR(1) of unit variance."""
    noise = numpy_stream(spec.seed, "synthetic/signal").standard_normal((spec.days, spec.assets))
    noise[1:] *= math.sqrt(1 - spec.persistence**2)
    for t in range(1, spec.days):  # scipy.signal would need a second to import
        noise[t] += spec.persistence * noise[t - 1]
    return noise
