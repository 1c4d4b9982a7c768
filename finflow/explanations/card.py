"""A decision card: all explanations of one decision, as plain records."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from finflow.evaluation.files import plain
from finflow.explanations.alternatives import Alternative
from finflow.explanations.calibration import Calibration
from finflow.explanations.counterfactual import Flip
from finflow.explanations.holding import Holding
from finflow.explanations.novelty import Novelty
from finflow.explanations.tail import Tail
from finflow.explanations.value_distribution import ValueDistribution


@dataclass(frozen=True)
class Line:
    """One asset: weights before (drifted), target, and after; the trade, its cost, and its parts.

    experts [K] and execution sum to the trade; marginal and tail part: see `Tail`. Fractions of net asset value.
    """

    asset: str
    before: float
    target: float
    after: float
    trade: float
    cost: float
    experts: tuple[float, ...]
    execution: float
    marginal: float
    tail: float


@dataclass(frozen=True)
class Reason:
    """Share of one input in a target; `value` in train standard deviations, None where it is no single number."""

    label: str
    share: float
    value: float | None


@dataclass(frozen=True)
class Reasons:
    """Attribution of a weight: `value` = `average` (average day) + shares of all inputs + `residual`."""

    subject: str
    value: float
    average: float
    top: tuple[Reason, ...]
    rest: float
    residual: float
    steps: int


@dataclass(frozen=True)
class RegimeReading:
    """Label and the gauges behind it; volatilities a year, losses as fractions of the peak; None before they exist.

    distance : threshold -> volatility, or loss, minus it; of thresholds that exist.
    """

    label: str
    volatility: float | None
    stable: float | None
    leaves_volatile: float | None
    enters_volatile: float | None
    loss: float
    enters_crisis: float
    leaves_crisis: float
    distance: dict[str, float]


@dataclass(frozen=True)
class DecisionOutcome:
    """Returns after the decision, unknown when it was taken.

    net, benchmark : of the next day. days : trading days that `later` covers. next, later [n] : returns of each name
    over one day and over `days`. alternatives : name -> return over one day and over `days` of its weights left alone.
    """

    date: str
    net: float
    benchmark: float
    days: int
    next: tuple[float, ...]
    later: tuple[float, ...]
    alternatives: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Card:
    """One decision; `unit` is what a row of its data is called, `calibration_window` what the critic was judged on.

    focus : name of its largest trade, or of the `holding` that it explains. outcome : None as long as none is known.
    """

    date: str
    unit: str
    window: str
    provenance: Mapping[str, Any]
    entered: bool
    turnover: float
    cost: float
    rate: float
    gate: dict[str, float]
    focus: str
    lines: tuple[Line, ...]
    regime: RegimeReading
    why_trade: Reasons
    why_aim: Reasons
    flips: tuple[Flip, ...]
    leaders: dict[str, str]
    value_distribution: ValueDistribution
    calibration: Calibration | None
    calibration_window: str
    tail: Tail
    novelty: Novelty
    alternatives: tuple[Alternative, ...]
    outcome: DecisionOutcome | None
    holding: Holding | None

    @property
    def leader(self) -> str:
        """Expert with the largest share of the gate."""
        return max(self.gate, key=lambda name: self.gate[name])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is undefined is None."""
        return plain(asdict(self))
