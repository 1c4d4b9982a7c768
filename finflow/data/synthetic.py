"""A market made to order: calm and turbulent regimes, one common factor, and alpha planted where asked for."""

import math

import numpy as np
from numpy.typing import NDArray

from finflow.data.prices import Prices
from finflow.schema.env import Env, Synthetic
from finflow.seeding import numpy_stream

PLANTED = "planted"
FIRST_DAY = np.datetime64("2000-01-03", "D")
STAY = (0.992, 0.95)
"""Daily probability of staying calm, of staying turbulent: spells of 125 and 20 days on average."""
FACTOR_MEAN = (0.0009, -0.0010)
FACTOR_VOLATILITY = (0.006, 0.014)
"""A day, calm and turbulent: losses that crisis labels see, but that are made good within months, not decades."""
IDIOSYNCRATIC_SCALE = (1.0, 1.6)
"""Multiplies each name's own volatility in calm and turbulent days."""


def load_synthetic(env: Env) -> Prices:
    """Prices of the market that `env.synthetic` describes."""
    assert env.synthetic is not None, "the schema asks for it"
    return make_prices(env.synthetic)


def make_prices(spec: Synthetic) -> Prices:
    """Draw a market of `spec.days` business days and `spec.assets` names; the same `spec` gives the same bits.

    Log return of name i on day t: beta_i f_t + sigma_i,t e_i,t, where f and sigma switch with a two-state Markov
    chain. With `spec.ic` > 0, e_i,t+1 = ic s_i,t + sqrt(1 - ic^2) noise for a standard AR(1) signal s of
    persistence `spec.persistence`, known at the close of t and handed out as the signal `planted`.
    """
    days, names = spec.days, spec.assets
    turbulent = _chain(spec)
    state = turbulent.astype(np.int64)
    rng = numpy_stream(spec.seed, "synthetic/returns")
    factor = np.take(FACTOR_MEAN, state) + np.take(FACTOR_VOLATILITY, state) * rng.standard_normal(days)
    beta = rng.uniform(0.6, 1.4, names)
    volatility = rng.uniform(0.008, 0.016, names) * np.take(IDIOSYNCRATIC_SCALE, state)[:, None]
    own = rng.standard_normal((days, names))
    signals: dict[str, NDArray[np.float64]] = {}
    if spec.ic > 0:
        signal = _autoregression(spec)
        own[1:] = spec.ic * signal[:-1] + math.sqrt(1 - spec.ic**2) * own[1:]
        signals[PLANTED] = signal
    log_returns = beta * factor[:, None] + volatility * own - 0.5 * volatility**2
    log_returns[0] = 0.0
    dates = np.busday_offset(FIRST_DAY, np.arange(days), roll="forward").astype("datetime64[D]")
    tickers = tuple(f"SYN{i:02d}" for i in range(1, names + 1))
    return Prices(dates, tickers, 100.0 * np.exp(np.cumsum(log_returns, axis=0)), signals=signals)


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
    for t in range(1, spec.days):  # scipy.signal would do it, and take a second to import
        noise[t] += spec.persistence * noise[t - 1]
    return noise
