"""Tilts of 1/N by a signal: by the true one of a synthetic market (the oracle), and by a ridge regression's prediction.

The regression is a baseline for the policy: of the next days' active returns on the policy's features, pooled over
names and fitted on train rows. Strength and speed of a tilt are chosen on validation rows, net of costs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from finflow.data.build import PLANTED
from finflow.data.features import SIGNAL_PREFIX, FeatureScaling
from finflow.data.market import TRADABLE, Market, Window
from finflow.envs.ledger import Accounting
from finflow.errors import DataError
from finflow.evaluation.backtest import Rows, Strategy, Task, backtest, equal_weight_track
from finflow.evaluation.metrics import active_information_ratio
from finflow.evaluation.result import Floats, Regression, Track

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


LINEAR = "linear tilt"
HORIZON = 5
"""Days ahead whose active return is predicted. On planted alpha (IC .05 and .1, seeds 0-2) a week kept .98 to .99 of
the oracle's active information ratio, a day .92 to .98, a month .96 to .98, and one of these three chosen on
validation rows .93 to .99.
"""
PENALTY = 0.1
"""Ridge penalty in variances of a scaled feature: a direction of variance v keeps v / (v + penalty) of its
coefficient. There, too, .001 kept as little as .66 of the oracle's ratio, and 1 no more than .98.
"""


@dataclass(frozen=True)
class LinearTilt:
    """A fitted regression, and the tilt of 1/N by its prediction.

    Attributes
    ----------
    scaling : of the features, fitted on train rows.
    features : names of the F features.
    coefficients : [F] of the scaled features; the prediction across names has a standard deviation of 1 on train
        rows. All 0 where no feature differs between names.
    strength, rate : the tilt's, as chosen on validation rows; strength 0 and rate 1 are 1/N at the policy's frequency.
    information_ratio : net active information ratio on those rows; 0 for 1/N.
    """

    scaling: FeatureScaling
    features: tuple[str, ...]
    coefficients: Floats
    strength: float
    rate: float
    information_ratio: float

    def signal(self, market: Market) -> Floats:
        """Standardised prediction [T, d], known at the close of t."""
        return _predict(self.scaling.apply(market)[0], self.coefficients, market)

    def facts(self) -> Regression:
        """Coefficients by name, and what was chosen."""
        named = dict(zip(self.features, self.coefficients.tolist(), strict=True))
        return Regression(named, self.strength, self.rate, self.information_ratio)

    def strategy(self, market: Market) -> Strategy:
        """The tilt on any market with the same features."""
        return tilt(market, self.signal(market), self.strength, self.rate)


def fit_linear_tilt(task: Task, scaling: FeatureScaling) -> LinearTilt:
    """Fit on train rows, then choose strength and rate by the net active information ratio on validation rows.

    1/N is held if the tilt earned no more on the validation rows than 1/N approached at the same rate, which also
    trades less than 1/N itself. Rows from `fold.validation.stop` on are not used.

    Parameters
    ----------
    scaling : the policy's.
    """
    market, fold, accounting = task.market, task.fold, task.accounting
    features = scaling.apply(market)[0]
    coefficients = regress(market, features, fold.train)
    signal = _predict(features, coefficients, market)
    chosen = fit_oracle(market, fold.validation, accounting, signal=signal)
    slow = task.track(fold.validation, tilt(market, signal, 0.0, chosen.rate), "untilted")
    gain = active_information_ratio(chosen.track(market, fold.validation, accounting).net, slow.net)
    pays = chosen.information_ratio > 0 and gain is not None and gain > 0
    picked = (chosen.strength, chosen.rate, chosen.information_ratio) if pays else (0.0, 1.0, 0.0)
    return LinearTilt(scaling, market.feature_names, coefficients, *picked)


def regress(market: Market, features: NDArray[np.float32], train: Window) -> Floats:
    """Coefficients [F] of the return of the `HORIZON` days after t on the scaled features [T, d, F] at t.

    Cells are the names tradable at t, for each t whose `HORIZON` days end within `train`. Return and features are less
    their mean over the day's names: a tilt trades one name against another, and what all have in common on a day (the
    benchmark's return, too) moves no weight. The coefficients are divided by the standard deviation of the prediction.
    """
    rows = np.arange(train.start - 1, train.stop - HORIZON)
    zero = np.zeros(features.shape[-1])
    if not len(rows):
        return zero
    cells = market.status[rows, :-1] == TRADABLE
    grown = np.cumsum(market.returns[: train.stop, :-1], axis=0)
    y = _relative((grown[rows + HORIZON] - grown[rows])[..., None], cells)[cells][:, 0]
    x = _relative(features[rows].astype(np.float64), cells)[cells]
    if not len(y):
        return zero
    coefficients = np.asarray(Ridge(alpha=PENALTY * len(y), fit_intercept=False).fit(x, y).coef_, dtype=np.float64)
    spread = math.sqrt(float(np.mean((x @ coefficients) ** 2)))
    return coefficients / spread if spread > 0 else zero


def _predict(features: NDArray[np.float32], coefficients: Floats, market: Market) -> Floats:
    """Prediction [T, d] less the mean over the day's tradable names."""
    return _relative((features @ coefficients)[..., None], market.status[:, :-1] == TRADABLE)[..., 0]


def _relative(values: Floats, cells: NDArray[np.bool_]) -> Floats:
    """`values` [T, d, F] less their mean over the `cells` [T, d] of each row; 0 in the others."""
    count = np.maximum(cells.sum(axis=1), 1)
    kept = np.where(cells[..., None], values, 0.0)
    return np.where(cells[..., None], kept - (kept.sum(axis=1) / count[:, None])[:, None], 0.0)
