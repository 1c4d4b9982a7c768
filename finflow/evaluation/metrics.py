"""Metrics of a track of net returns, whole and in parts, and what they say of gate, experts and confidence.

Annualised by rows per year, ddof 1, no risk-free rate, no clipping. A deepest drawdown runs from its first row under
the peak to the row that regains it. Parts are market regimes, known crises, calendar years and months; the regime of a
day is the causal label at the close at which its weights were decided.

Whether the gate follows the market regime is tested by their mutual information against its distribution by chance.
Regimes last for months and a gate moves slowly, so even independent series agree for long stretches. Shuffling single
days would destroy that and mistake it for dependence. The null here is circular: the regimes keep their order and
lengths and are shifted against the gate by every number of days.

Confidence is the part of a policy's tilt that is deployed, by shrinkage (cf. Thomas et al. 2015). The policy's active
return is estimated with an error. Of its tilt away from the benchmark's portfolio the part kappa = max(0, 1 - 1 / t^2)
is deployed (positive-part James-Stein of one mean, Efron & Morris 1973), 0 where t <= 1. t is the paired t statistic
of the daily net return over that of holding e at the same trading rate, on days outside the policy's training.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import NO_LABEL, REGIMES, SPREAD, TRADING_YEAR, Calendar, Market, Window
from finflow.evaluation.result import Floats, GateInformation, Metrics, Stress, Track

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
    peaks = np.flatnonzero(under == 0)  # row 0, the start, is one
    spells = np.diff(peaks)
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
        drawdown_days=float(max(spells[spells > 1].max(initial=0), days - peaks[-1])),
        turnover=known(float(rebalanced.mean()) * year) if len(rebalanced) else None,
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


def known(value: float) -> float | None:
    """None where a figure is not finite."""
    return value if math.isfinite(value) else None


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


CRISES = (
    ("dot-com", "2000-03-24", "2002-10-09"),
    ("financial crisis", "2007-10-09", "2009-03-09"),
    ("pandemic", "2020-02-19", "2020-04-30"),
    ("inflation", "2022-01-03", "2022-10-12"),
)
"""Peak to trough of the S&P 500; the pandemic's window includes the first weeks of the recovery."""
SHORTEST = 21
"""Trading days of a crisis that a window must hold, and no fewer than four rows."""
Period = Literal["Y", "M"]
Dates = NDArray[np.datetime64]


def decision_regimes(market: Market, window: Window) -> NDArray[np.int8]:
    """[R] label known at the decision behind each return; days before the first label count as `normal`."""
    labels = market.regime[window.start - 1 : window.stop - 1]
    return np.where(labels == NO_LABEL, REGIMES.index("normal"), labels).astype(np.int8)


def by_regime(
    labels: NDArray[np.int8], tracks: Mapping[str, Track]
) -> tuple[dict[str, dict[str, Metrics]], dict[str, int]]:
    """Metrics of each strategy on the days of each regime, and how many days that are.

    The days of a regime are strung together, so its drawdown and its length run over that string. Regimes
    without a day are left out.
    """
    tables: dict[str, dict[str, Metrics]] = {}
    days: dict[str, int] = {}
    for index, regime in enumerate(REGIMES):
        chosen = labels == index
        if not chosen.any():
            continue
        days[regime] = int(chosen.sum())
        tables[regime] = {
            name: measure(t.net[chosen], t.turnover[chosen], t.weights[chosen], opening=bool(chosen[0]), year=t.year)
            for name, t in tracks.items()
        }
    return tables, days


def stress_table(tracks: Mapping[str, Track]) -> tuple[Stress, ...]:
    """Net return and deepest drawdown of every strategy within each crisis; all tracks have the same dates."""
    first_track = next(iter(tracks.values()))
    dates, year = first_track.dates, first_track.year
    found: list[Stress] = []
    for name, first, last in CRISES:
        days = (dates >= np.datetime64(first, "D")) & (dates <= np.datetime64(last, "D"))
        if days.sum() < Calendar(year=year).rows(SHORTEST, SPREAD):
            continue
        held = dates[days]
        found.append(Stress(name, str(held[0]), str(held[-1]), {k: _fall(t, days) for k, t in tracks.items()}))
    return tuple(found)


def _fall(track: Track, days: NDArray[np.bool_]) -> tuple[float, float]:
    nav = np.cumprod(1.0 + track.net[days], dtype=np.float64)
    return float(nav[-1] - 1.0), abs(float(underwater(nav).min()))


def period_returns(dates: Dates, net: Floats, period: Period) -> tuple[Dates, Floats]:
    """Years or months [P] that hold rows, and what their net returns [R] compound to [P].

    A row belongs to the period of its date: the return of a week that ends in February is February's. The first and
    the last period may be cut by the window.
    """
    periods, first = _periods(dates, period)
    return periods, np.multiply.reduceat(1.0 + net, first) - 1.0


def period_sums(dates: Dates, values: Floats, period: Period) -> tuple[Dates, Floats]:
    """Years or months [P] that hold rows, and the sum of [R] values in each."""
    periods, first = _periods(dates, period)
    return periods, np.add.reduceat(values, first)


def _periods(dates: Dates, period: Period) -> tuple[Dates, NDArray[np.intp]]:
    return np.unique(dates.astype(f"datetime64[{period}]"), return_index=True)


QUANTILE = 0.95


def gate_information(gate: Floats, regime: NDArray[np.int8]) -> float:
    """I(Z; regime) in nats, Z an expert drawn with the gate's shares: H(mean gate) - sum_r p_r H(mean gate | r).

    0 where the gate is the same in every regime, however it moves within them; at most the regimes' own entropy.

    Parameters
    ----------
    gate : [R, K] shares, rows summing to 1.
    regime : [R] labels.
    """
    return float(_information(gate, _indicators(regime)))


def follows_regime(gate: Floats, regime: NDArray[np.int8]) -> GateInformation | None:
    """The same beside its null of all R circular shifts; None where there is one expert or one regime alone.

    The shift by nothing is one of them: so the p-value is at least 1 / R, and exact where the series are stationary.
    """
    marks = _indicators(regime)
    if gate.shape[1] < 2 or len(marks) < 2:
        return None
    null = np.array([_information(gate, np.roll(marks, days, axis=1)) for days in range(len(gate))])
    # Shifts that are equal but for rounding count as reached.
    p_value = float(np.mean(null >= null[0] - 1e-12))
    return GateInformation(float(null[0]), float(np.quantile(null, QUANTILE)), p_value)


def _indicators(regime: NDArray[np.int8]) -> Floats:
    """[labels present, R], 1 where a day carries the label."""
    return (np.unique(regime)[:, None] == regime).astype(np.float64)


def _information(gate: Floats, marks: Floats) -> np.float64:
    days = marks.sum(1)
    within = marks @ gate / days[:, None]
    return _entropy(gate.mean(0)) - (days / days.sum()) @ _entropy(within)


def _entropy(shares: Floats) -> Floats:
    """Over the last axis, in nats; 0 ln 0 is 0."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1)


CHANGE = "_change"
"""Suffix of the change of a diagnostic since the phase-1 parent."""


@dataclass(frozen=True)
class Reading:
    """Display of a diagnostic: `shown` converts its value to the unit of `label`."""

    label: str
    unit: str
    decimals: int
    shown: Callable[[float], float]


READINGS = {
    "gate_entropy": Reading("Experts in use", "effective number", 2, math.exp),
    "expert_distance": Reading("What two experts hold otherwise", "% of wealth, mean over pairs", 1, lambda d: 100 * d),
}
"""The effective number of experts is exp(entropy of the gate): from 1 (a single one) to K (equal shares)."""


def readings(found: Mapping[str, float | None]) -> list[tuple[Reading, float, float | None]]:
    """Each diagnostic, its value, and its change since phase 1 (None where there was none) in the unit shown."""
    shown: list[tuple[Reading, float, float | None]] = []
    for key, value in found.items():
        if value is None or (key.endswith(CHANGE) and key.removesuffix(CHANGE) in found):
            continue
        reading = READINGS.get(key, Reading(key.replace("_", " ").capitalize(), "", 4, float))
        now, change = reading.shown(value), found.get(key + CHANGE)
        shown.append((reading, now, None if change is None else now - reading.shown(value - change)))
    return shown


def diagnostics_says(found: Mapping[str, float | None]) -> str:
    """All of them in one line: `experts in use 3.71 (-1.24 since phase 1), ...`."""
    parts: list[str] = []
    for reading, now, change in readings(found):
        since = "" if change is None else f" ({change:+.{reading.decimals}f} since phase 1)"
        percent = " %" if reading.unit.startswith("%") else ""
        label = reading.label[0].lower() + reading.label[1:]
        parts.append(f"{label} {now:.{reading.decimals}f}{percent}{since}")
    return ", ".join(parts)


Mode = Literal["validation", "crossfit"]


@dataclass(frozen=True)
class Confidence:
    """Estimate of a policy's net active return out of sample, and the deployed part that follows from it.

    Attributes
    ----------
    mode : validation: the policy itself on validation days; crossfit: these, and blocks of train days, each run by
        actors that were trained without it.
    kappa : part of the tilt that is deployed, 0 to 1.
    t : of the mean daily active return; None where it never differs from 0.
    active_return : of that mean, a year. years : of the days behind it.
    parts : by block of days, its mean active return a year.
    late : whether every trade was executed one close late, since closes may not be simultaneous.
    """

    mode: Mode
    kappa: float
    t: float | None
    active_return: float
    years: float
    parts: dict[str, float]
    late: bool = False

    def line(self) -> str:
        """One sentence for people."""
        how = "out of fold" if self.mode == "crossfit" else "on validation days"
        how += ", traded one close late" if self.late else ""
        t = "t undefined" if self.t is None else f"t {self.t:.1f}"
        found = f"{how} {100 * self.active_return:+.1f} % a year over the benchmark, {t}, over {self.years:.0f} years"
        if self.kappa == 0.0:
            return f"abstains: holds the benchmark's portfolio ({found})"
        return f"deployed at {self.kappa:.2f} of its tilt ({found})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, stored with the weights."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**stored)


def confidence_of(mode: Mode, blocks: dict[str, Floats], year: int, *, late: bool = False) -> Confidence:
    """Pool the net active returns of `blocks`, name -> [R], of which `year` rows are a year."""
    named = dict(sorted(blocks.items()))  # a fixed order gives the sum the same bits
    active = np.concatenate(list(named.values()))
    t = t_statistic(active)
    parts = {name: float(block.mean()) * year for name, block in named.items()}
    return Confidence(mode, shrinkage(t), t, float(active.mean()) * year, len(active) / year, parts, late)


def t_statistic(active: Floats) -> float | None:
    """Mean of [R] over its standard error; None for fewer than two days or where nothing varies."""
    if len(active) < 2 or np.ptp(active) == 0.0:
        return None
    return float(active.mean() / active.std(ddof=1) * np.sqrt(len(active)))


def shrinkage(t: float | None) -> float:
    """kappa = 1 - 1 / t^2 where t > 1, else 0."""
    return 1.0 - 1.0 / t**2 if t is not None and t > 1.0 else 0.0


def paired_gain(candidate: Floats, incumbent: Floats) -> float:
    """How far the ratio mean / std of one series [R] is above another's on the same days, in standard errors.

    Each series is divided by its own standard deviation, so that a candidate does not gain by taking more risk. Both
    standard deviations count as known. 0 where the two do not differ; a series that never varies counts as 0.
    """
    scaled = [each / each.std(ddof=1) if np.ptp(each) > 0 else np.zeros_like(each) for each in (candidate, incumbent)]
    difference = scaled[0] - scaled[1]
    spread = difference.std(ddof=1)
    return float(difference.mean() / spread * np.sqrt(len(difference))) if spread > 0 else 0.0
