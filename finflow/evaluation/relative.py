"""A track against another one: beta, tracking error, capture of its months; and figures over rolling windows."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import skew

from finflow.data.market import SPREAD
from finflow.evaluation.metrics import FLAT, active_information_ratio, period_returns
from finflow.evaluation.result import Floats, Track


@dataclass(frozen=True)
class Relative:
    """Figures of one track against another over the same rows; what is undefined is None.

    beta : covariance of the net returns over the variance of the other's.
    correlation : of the net returns.
    active_return : mean net active return a year. tracking_error : standard deviation of it a year.
    information_ratio : the first over the second.
    up_capture, down_capture : geometric mean of the monthly returns over that of the other, in months in which the
        other rose, or fell.
    """

    beta: float | None
    correlation: float | None
    active_return: float
    tracking_error: float | None
    information_ratio: float | None
    up_capture: float | None
    down_capture: float | None


def relative(track: Track, other: Track) -> Relative:
    """Measure `track` against `other`, which has the same dates."""
    active = track.net - other.net
    moving = len(active) > 1 and np.ptp(other.net) >= FLAT
    both = moving and np.ptp(track.net) >= FLAT
    up, down = captures(track, other)
    return Relative(
        beta=float(np.cov(track.net, other.net)[0, 1] / np.var(other.net, ddof=1)) if moving else None,
        correlation=float(np.corrcoef(track.net, other.net)[0, 1]) if both else None,
        active_return=float(active.mean()) * track.year,
        tracking_error=float(active.std(ddof=1)) * track.year**0.5 if len(active) > 1 else None,
        information_ratio=active_information_ratio(track.net, other.net, track.year),
        up_capture=up,
        down_capture=down,
    )


def captures(track: Track, other: Track) -> tuple[float | None, float | None]:
    """Up and down capture; None where the other has no such month, or either loses everything."""
    _, ours = period_returns(track.dates, track.net, "M")
    _, theirs = period_returns(other.dates, other.net, "M")

    def over(months: np.ndarray) -> float | None:
        if not months.any() or min(ours[months].min(), theirs[months].min()) <= -1:
            return None
        mean, base = (float(np.expm1(np.log1p(returns[months]).mean())) for returns in (ours, theirs))
        return mean / base

    return over(theirs > 0), over(theirs < 0)


def skewness(net: Floats) -> float | None:
    """Adjusted Fisher-Pearson skewness of [R] returns; None for fewer than three, or without volatility."""
    if len(net) < 3 or np.ptp(net) < FLAT:
        return None
    return float(skew(net, bias=False))


@dataclass(frozen=True)
class Rolling:
    """Figures of the `window` rows up to each row from the `window`-th on; nan where undefined.

    sharpe, volatility : [R - window + 1] of the track; other_sharpe, other_volatility : of the other. beta : of the
    first on the second.
    """

    window: int
    sharpe: Floats
    volatility: Floats
    other_sharpe: Floats
    other_volatility: Floats
    beta: Floats


def rolling_window(rows: int, year: int) -> int:
    """Rows of a rolling window: a year where there are at least one and a half of it, else a quarter."""
    return year if 2 * rows >= 3 * year else max(year // 4, SPREAD)


def rolling(track: Track, other: Track) -> Rolling | None:
    """Rolling figures of `track` and `other`; None where there are fewer rows than a window."""
    window = rolling_window(len(track.net), track.year)
    if len(track.net) < window:
        return None
    ours, theirs = (sliding_window_view(one.net, window) for one in (track, other))
    spread, base = ours.std(axis=1, ddof=1), theirs.std(axis=1, ddof=1)
    shared = (ours * theirs).mean(axis=1) - ours.mean(axis=1) * theirs.mean(axis=1)
    annual = track.year**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        sharpe = np.where(spread > FLAT, ours.mean(axis=1) / spread, np.nan) * annual
        other_sharpe = np.where(base > FLAT, theirs.mean(axis=1) / base, np.nan) * annual
        beta = np.where(base > FLAT, shared * window / (window - 1) / base**2, np.nan)
    return Rolling(window, sharpe, spread * annual, other_sharpe, base * annual, beta)
