"""The oracle: the best strategy from the true signal of a synthetic market, the reference for learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.data.features import SIGNAL_PREFIX
from finflow.data.market import TRADABLE, Market, Window
from finflow.data.synthetic import PLANTED
from finflow.envs.ledger import Accounting
from finflow.errors import DataError
from finflow.evaluation.backtest import Rows, Strategy, backtest, equal_weight_track
from finflow.evaluation.metrics import active_information_ratio
from finflow.evaluation.result import Floats, Track

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
RATES = (0.05, 0.1, 0.2, 0.4, 1.0)


@dataclass(frozen=True)
class Oracle:
    """Tilt of strength k over 1/N, approached by a fraction `rate` a decision, as chosen on a window.

    Attributes
    ----------
    strength, rate : of the winner.
    information_ratio : its net active information ratio against 1/N at the market's frequency, on that window.
    act : the strategy itself.
    """

    strength: float
    rate: float
    information_ratio: float
    act: Strategy

    def track(self, market: Market, window: Window, accounting: Accounting) -> Track:
        """The oracle over another window, from cash."""
        return backtest(market, window, accounting, {"oracle": self.act})["oracle"]


def tilt(market: Market, signal: NDArray[np.float64], strength: float, rate: float) -> Strategy:
    """A fraction `rate` of the way to softmax(strength * signal) over the tradable names; signal [T, d], known at t."""

    def act(rows: Rows, drifted: Floats, _drawdown: Floats) -> Floats:
        tradable = market.status[rows, :-1] == TRADABLE
        wanted = np.where(tradable, strength * np.where(tradable, signal[rows], 0.0), -np.inf)
        highest = np.where(tradable.any(axis=1), wanted.max(axis=1), 0.0)
        scores = np.exp(wanted - highest[:, None])  # never overflows
        total = scores.sum(axis=1, keepdims=True)
        aim = np.concatenate([scores / np.where(total > 0, total, 1.0), (total == 0).astype(np.float64)], axis=1)
        started = drifted[:, -1:] < 1.0  # the first purchase is made at once
        return np.where(started, (1.0 - rate) * drifted + rate * aim, aim)

    return act


def fit_oracle(
    market: Market,
    window: Window,
    accounting: Accounting,
    *,
    signal: NDArray[np.float64] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    rates: Sequence[float] = RATES,
) -> Oracle:
    """Choose strength and rate by the net active information ratio over `window`, the validation rows.

    Parameters
    ----------
    signal : [T, d], known at the close of t; by default the one that env=synthetic plants.

    Raises
    ------
    DataError
        If the market has no planted signal.
    """
    true = planted_signal(market) if signal is None else signal
    tilts = {f"{k} {rate}": (k, rate, tilt(market, true, k, rate)) for k in strengths for rate in rates}
    equal = equal_weight_track(market, window, accounting)
    tracks = backtest(market, window, accounting, {name: act for name, (_, _, act) in tilts.items()})
    ratios = {name: active_information_ratio(track.net, equal.net, equal.year) or 0.0 for name, track in tracks.items()}
    best = max(ratios, key=lambda name: ratios[name])
    strength, rate, act = tilts[best]
    return Oracle(strength, rate, ratios[best], act)


def planted_signal(market: Market) -> NDArray[np.float64]:
    """The signal that env=synthetic plants, [T, d].

    Raises
    ------
    DataError
        If there is none.
    """
    name = f"{SIGNAL_PREFIX}{PLANTED}"
    if name not in market.feature_names:
        raise DataError("oracle: this market has no planted signal; use env=synthetic with env.synthetic.ic above 0")
    return market.features[:, :, market.feature_names.index(name)].astype(np.float64)
