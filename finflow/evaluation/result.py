"""Results of an evaluation: frozen records of arrays and numbers.

R return rows of a window, n assets with cash last, K experts. Row i of a track holds the decision taken at the
close of the day before `dates[i]` and what it earned on `dates[i]`. Fractions are of net asset value.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import TRADING_YEAR
from finflow.envs.ledger import RUIN

Floats = NDArray[np.float64]
VerdictOutcome = Literal["BEATS", "WORSE THAN", "INDISTINGUISHABLE FROM"]


@dataclass(frozen=True, repr=False)
class Track:
    """One strategy over one window, as the ledger booked it.

    Of a strategy whose returns are given, weights have no columns, and turnover and cost are nan.

    Attributes
    ----------
    dates : [R] datetime64[D], dates of the returns.
    weights : [R, n] executed weights, which earned the row's return.
    drifted : [R, n] weights just before that decision.
    turnover, cost, gross, net : [R] two-way traded notional, its cost, return before and after cost.
    closures : positions closed because their price had ended.
    year : rows a year, of the market's calendar.
    """

    name: str
    dates: NDArray[np.datetime64]
    weights: Floats
    drifted: Floats
    turnover: Floats
    cost: Floats
    gross: Floats
    net: Floats
    closures: int
    year: int = TRADING_YEAR

    def __repr__(self) -> str:
        return f"Track({self.name}, {self.dates[0]} to {self.dates[-1]})"

    @property
    def booked(self) -> bool:
        """Whether the ledger booked it, so that its weights, trades and costs are known."""
        return self.weights.shape[1] > 0

    @property
    def nav(self) -> Floats:
        """[R] net asset value at the close of each row, from 1 before the first."""
        return np.cumprod(1.0 + self.net, dtype=np.float64)

    @property
    def drawdown_before(self) -> Floats:
        """[R] ln(peak / NAV) known at each row's decision, at least 0, followed as the environment follows it."""
        drawdown = np.zeros(len(self.net))
        for at, log_net in enumerate(np.log(np.maximum(1.0 + self.net[:-1], RUIN)).tolist(), 1):
            drawdown[at] = max(drawdown[at - 1] - log_net, 0.0)
        return drawdown


@dataclass(frozen=True)
class Metrics:
    """Figures of one track; what is undefined is None, never 0. Definitions in `metrics.measure`."""

    annual_return: float | None
    volatility: float | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    cvar95: float | None
    max_drawdown: float | None
    drawdown_days: float | None
    turnover: float | None
    effective_assets: float | None
    hit_rate: float | None
    tail_ratio: float | None
    final_nav: float


@dataclass(frozen=True)
class Verdict:
    """Annualised net Sharpe minus the opponent's, with its studentised 95 % interval.

    Attributes
    ----------
    difference, low, high : nan where a Sharpe ratio is undefined.
    opponent : the track that was compared with, e.g. "1/N monthly".
    samples, block_days : of the bootstrap, as used (a short window shortens the blocks).
    p_value : of equal Sharpe ratios, from the same bootstrap; None where undefined.
    scale : factor on the policy's risky weights, 1 for the policy as it is.
    """

    outcome: VerdictOutcome
    difference: float
    low: float
    high: float
    opponent: str
    samples: int
    block_days: int
    p_value: float | None = None
    scale: float = 1.0

    @property
    def leveraged(self) -> bool:
        """Whether the compared portfolio is the policy scaled up, cash borrowed at the cash yield where short."""
        return self.scale > 1.0

    def line(self) -> str:
        """The first line of a report."""
        figures = [f"{round(x, 2) + 0.0:.2f}" for x in (self.difference, self.low, self.high)]
        against = "1/N" if self.opponent.startswith("1/N") else self.opponent
        return f"Verdict: {self.outcome} {against} (difference {figures[0]}, 95 % [{figures[1]}, {figures[2]}])"


@dataclass(frozen=True)
class CostRow:
    """Policy and opponent, their decisions unchanged, at one cost of `bps` basis points of traded notional."""

    bps: float
    sharpe: float | None
    annual_return: float | None
    opponent_sharpe: float | None


@dataclass(frozen=True)
class Comparison:
    """The policy against one opponent over the same days.

    active_ratio : annualised mean over standard deviation of the net active return; None where undefined.
    difference, low, high : of the annualised Sharpe ratios, with the studentised 95 % interval; nan where undefined.
    p_value : of equal Sharpe ratios.
    """

    opponent: str
    active_ratio: float | None
    difference: float
    low: float
    high: float
    p_value: float | None


@dataclass(frozen=True)
class Stress:
    """A known crisis as far as the window holds it: strategy -> (net return, deepest drawdown), both fractions."""

    name: str
    first: str
    last: str
    strategies: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Reality:
    """The policy with one part removed, on *validation* rows, to find experts or a gate that add nothing.

    sharpe, active_ratio : of the variant, the latter against 1/N; None where undefined.
    distance : mean half L1 distance of its weights from the policy's own.
    worth : the policy's Sharpe ratio against the variant's: what the part earns; None of the policy itself.
    """

    name: str
    sharpe: float | None
    active_ratio: float | None
    distance: float
    worth: Comparison | None


@dataclass(frozen=True)
class GateInformation:
    """Mutual information of gate and market regime, in nats, on validation rows.

    chance : 95 % quantile of the same with the regimes shifted against the gate in time.
    p_value : share of the shifts that reach what was found.
    """

    nats: float
    chance: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether the gate follows the regime by more than chance explains."""
        return self.p_value <= 0.05


@dataclass(frozen=True)
class Regression:
    """The linear tilt of one fold, as `linear_tilt.LinearTilt` has it.

    coefficients : by name of the scaled feature.
    strength, rate, information_ratio : as chosen on validation rows, and the net active information ratio there;
        strength 0 holds 1/N.
    """

    coefficients: dict[str, float]
    strength: float
    rate: float
    information_ratio: float


@dataclass(frozen=True)
class Scrutiny:
    """Robustness checks beyond the verdict.

    Attributes
    ----------
    comparisons : against 1/N, `best_baseline` (the baseline with the best Sharpe ratio on validation rows), the linear
        tilt, the user's own benchmark, and 1/N again with the cash yield taken off both, where there are these.
    spa_p : Hansen's consistent p-value that no strategy here beats 1/N; None where undefined.
    lagged : the policy trading one close later than it decides; None where its returns are given.
    stress : known crises that the window holds.
    reality : see `Reality`; the first row is the policy itself.
    gate : see `GateInformation`; None with one expert, or one regime on the validation rows.
    detectable : Sharpe difference that this window could detect with 80 % power at the correlation found.
    regression : behind the linear tilt; None of several folds, each of which has its own.
    """

    comparisons: tuple[Comparison, ...]
    best_baseline: str
    spa_p: float | None
    lagged: Metrics | None
    stress: tuple[Stress, ...]
    reality: tuple[Reality, ...]
    gate: GateInformation | None
    detectable: float | None
    regression: Regression | None


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Everything in the report of one policy on one test window.

    Attributes
    ----------
    verdict, scaled_verdict : the second for the policy scaled to 1/N's train-window volatility; None where its own
        there is unknown.
    metrics : by strategy, "policy" first.
    by_regime : regime -> strategy -> metrics of the days decided under that causal label; regimes without a
        day are left out.
    costs, break_even_bps : the second is the cost at which policy and opponent have the same Sharpe ratio, None if
        there is none; no costs of a strategy whose returns are given.
    cash : [R] return of cash.
    benchmark : verdict against the user's own benchmark, which is then one of `baselines`; None where 1/N is it.
    gate, rate, regime : [R, K], [R], [R] int8 at the decision behind each return; regime indexes `REGIMES`. K is 0,
        and the rate nan, of a strategy that has no experts.
    """

    verdict: Verdict
    scaled_verdict: Verdict | None
    policy: Track
    baselines: dict[str, Track]
    metrics: dict[str, Metrics]
    by_regime: dict[str, dict[str, Metrics]]
    regime_days: dict[str, int]
    scrutiny: Scrutiny
    costs: list[CostRow]
    break_even_bps: float | None
    assets: tuple[str, ...]
    expert_names: tuple[str, ...]
    gate: Floats
    rate: Floats
    regime: NDArray[np.int8]
    diagnostics: dict[str, float]
    warnings: tuple[str, ...]
    window_opened: int
    cash: Floats
    benchmark: Verdict | None = None

    def __repr__(self) -> str:
        return f"Evaluation({self.verdict.line()}, {len(self.baselines)} baselines)"
