"""Metrics of a track of net returns: annualised by rows per year, ddof 1, no risk-free rate, no clipping.

And its deepest drawdowns, each from its first row under the peak to the row that regains it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import TRADING_YEAR
from finflow.evaluation.result import Floats, Metrics, Track

OBJECTIVES = {"sharpe": "validation_sharpe", "active_ir": "validation_active_information_ratio"}
"""Figure of a training run that each choice of `evaluation.objective` maximises."""
FLAT = 1e-14
"""Daily returns within this range differ by rounding only: volatility is zero, and ratios over it are undefined."""
ROUNDING = 1e-12
"""A NAV under its peak by less than this stands at it."""


def measure(
    net: Floats, turnover: Floats, weights: Floats, *, opening: bool = True, year: int = TRADING_YEAR
) -> Metrics:
    """Measure one track.

    Parameters
    ----------
    net : [R] daily net returns, fractions.
    turnover : [R] two-way traded notional, fractions of NAV.
    weights : [R, n] executed weights, cash last; n is 0 where they are not known.
    opening : whether row 0 holds the first purchase out of cash. Its cost is in `net`, as everyone's is, but it
        is no rebalancing, so the yearly turnover leaves that row out: buy and hold shows 0.
    year : rows a year, see `Calendar`.

    Returns
    -------
    Metrics
        annual_return : final NAV ** (year / R) - 1; None below a quarter of a year, too short to annualise.
        volatility, sharpe : std(net) * sqrt(year); mean / std * sqrt(year).
        sortino : mean * year over the root mean square of min(net, 0), annualised.
        calmar : annual_return / max_drawdown.
        cvar95 : mean loss of the worst 5 % of days, their number rounded up; positive is a loss.
        max_drawdown : largest 1 - NAV / peak, the NAV starting at 1 before the first day.
        drawdown_days : longest stretch of days from a peak to its recovery; one still open counts up to the end.
        turnover : mean two-way turnover a row * year.
        effective_assets : mean of 1 / sum of squared weights, cash counted as an asset.
        hit_rate : share of days with net > 0.
        tail_ratio : 95th percentile of net over minus its 5th.
        final_nav : prod(1 + net).
        Undefined figures (no days, less than a quarter, zero volatility, ruin, no loss) are None, as are turnover
        where it is nan and effective assets of weights without columns.
    """
    days = len(net)
    nav = np.concatenate([[1.0], np.cumprod(1.0 + net)])
    final_nav = float(nav[-1])
    if days == 0:
        return Metrics(*(None,) * 12, final_nav=final_nav)
    annual_return = float(np.float64(final_nav) ** (year / days) - 1.0) if final_nav > 0 and 4 * days >= year else None
    downside = math.sqrt(float(np.mean(np.minimum(net, 0.0) ** 2)))
    under = underwater(nav)
    depth = abs(float(under.min()))
    low, high = np.quantile(net, [0.05, 0.95])
    rebalanced = turnover[1:] if opening else turnover
    return Metrics(
        annual_return=annual_return,
        volatility=None if days < 2 else float(np.std(net, ddof=1)) * math.sqrt(year),
        sharpe=sharpe_ratio(net, year),
        sortino=None if downside < FLAT else float(net.mean()) / downside * math.sqrt(year),
        calmar=None if annual_return is None or depth == 0 else annual_return / depth,
        cvar95=cvar(net, 0.05),
        max_drawdown=depth,
        drawdown_days=float(_longest(np.flatnonzero(under == 0), days)),
        turnover=_known(float(rebalanced.mean()) * year) if len(rebalanced) else None,
        effective_assets=float(np.mean(1.0 / np.sum(weights**2, axis=1))) if weights.shape[1] else None,
        hit_rate=float(np.mean(net > 0)),
        tail_ratio=float(high / -low) if low < 0 else None,
        final_nav=final_nav,
    )


def track_metrics(track: Track) -> Metrics:
    """`measure` of a whole track, opened out of cash."""
    return measure(track.net, track.turnover, track.weights, year=track.year)


def sharpe_ratio(net: Floats, year: int = TRADING_YEAR) -> float | None:
    """Annualised Sharpe ratio of [R] net returns, `year` rows a year; None without volatility."""
    if len(net) < 2 or np.ptp(net) < FLAT:
        return None
    return float(net.mean() / np.std(net, ddof=1)) * math.sqrt(year)


def cvar(net: Floats, share: float) -> float:
    """Mean loss of the worst `share` of [R] days, their number rounded up; positive is a loss."""
    count = math.ceil(round(share * len(net), 9))  # 0.05 * 1260 must be 63, not 63.000000000000007
    return -float(np.partition(net, count - 1)[:count].mean())


def active_information_ratio(net: Floats, benchmark: Floats, year: int = TRADING_YEAR) -> float | None:
    """Annualised mean over standard deviation of [R] net returns minus the benchmark's; None if they are equal."""
    return sharpe_ratio(net - benchmark, year)


def validation_score(track: Track, benchmark: Track) -> dict[str, float | None]:
    """Score a validation track for selection; `benchmark` is 1/N at the policy's frequency over the same rows."""
    figures = track_metrics(track)
    return {
        "sharpe": figures.sharpe,
        "active_information_ratio": active_information_ratio(track.net, benchmark.net, track.year),
        "cvar95": figures.cvar95,
        "turnover": figures.turnover,
        "effective_assets": figures.effective_assets,
    }


def _longest(peaks: NDArray[np.intp], last: int) -> int:
    """Most days from a peak (day 0 counts as one) to its recovery, or to the `last` day if there is none."""
    apart = np.diff(peaks)
    return max(int(apart[apart > 1].max(initial=0)), last - int(peaks[-1]))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class Drawdown:
    """One fall from a peak; the start at 1 counts as a peak.

    first, trough, last : row under the peak for the first time, at the deepest, and for the last time.
    depth : 1 - NAV / peak at the trough, positive. recovered : whether the row after `last` regains the peak.
    """

    first: int
    trough: int
    last: int
    depth: float
    recovered: bool

    @property
    def length(self) -> int:
        """Rows from the peak to its recovery, or to the end of the track."""
        return self.last - self.first + 1 + self.recovered

    @property
    def falling(self) -> int:
        """Rows from the peak to the trough."""
        return self.trough - self.first + 1


def deepest_drawdowns(track: Track, count: int = 5) -> list[Drawdown]:
    """The `count` deepest drawdowns, the deepest first; fewer where there are not so many."""
    under = underwater(track.nav)
    edges = np.diff(np.r_[0, (under < -ROUNDING).astype(np.int8), 0])
    starts, stops = np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist()
    found = [
        Drawdown(start, start + int(np.argmin(under[start:stop])), stop - 1, -float(under[start:stop].min()),
                 stop < len(under))
        for start, stop in zip(starts, stops, strict=True)
    ]  # fmt: skip
    return sorted(found, key=lambda one: -one.depth)[:count]


def underwater(nav: Floats) -> Floats:
    """[R] NAV / highest NAV so far - 1, at most 0; the start at 1 counts."""
    return nav / np.maximum(np.maximum.accumulate(nav), 1.0) - 1.0
