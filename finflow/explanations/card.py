"""Decision cards: all explanations of one decision, as plain records, and what makes them.

The same run, window and day give the same card, to the bit: it does not depend on the clock, the folder or the order in
which cards are made.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from finflow.data.features import Gauges
from finflow.data.market import NO_LABEL, REGIMES, TRADING_YEAR
from finflow.evaluation.files import plain
from finflow.evaluation.metrics import known
from finflow.evaluation.result import Floats
from finflow.explanations import decision
from finflow.explanations.attribution import Attribution, Target, integrated_gradients
from finflow.explanations.counterfactual import Flip, Search, leader_margin, leaders_by_regime, trade_margin
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.novelty import Novelty, TrainDays
from finflow.explanations.value_distribution import (
    HORIZON,
    Calibration,
    ValueDistribution,
    calibrate,
    value_distribution,
)
from finflow.seeding import numpy_stream


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
    tail: decision.Tail
    novelty: Novelty
    alternatives: tuple[decision.Alternative, ...]
    outcome: DecisionOutcome | None
    holding: decision.Holding | None

    @property
    def leader(self) -> str:
        """Expert with the largest share of the gate."""
        return max(self.gate, key=lambda name: self.gate[name])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is undefined is None."""
        return plain(asdict(self))


REASONS = 8
"""Inputs that an attribution lists; the others are summed."""


@dataclass(eq=False)
class Explainer:
    """Makes the cards of one window; shared parts are computed once.

    Parameters
    ----------
    name : of the window: train, validation or test.
    gauges : by which the market's regimes were labelled.
    provenance : plain facts that identify data, configuration and weights.
    judge : window by which the critic is judged, its name and scene; null the scene's own. A critic is not judged by
        days that it was fitted on where there are others.
    """

    scene: DecisionTrace
    name: str
    gauges: Gauges
    provenance: Mapping[str, Any]
    seed: int
    judge: tuple[str, DecisionTrace] | None = None

    @cached_property
    def parts(self) -> decision.TradeParts:
        """Exact parts of all trades."""
        return decision.trade_parts(self.scene)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Of the critic over the whole window that judges it."""
        return calibrate(self.judge[1] if self.judge else self.scene, numpy_stream(self.seed, "explain/calibration"))

    @cached_property
    def train_days(self) -> TrainDays:
        """Points that novelty is measured against."""
        return TrainDays(self.scene.subject)

    def largest(self, count: int, places: range | None = None) -> list[int]:
        """Places of the largest turnovers, the largest first; the first purchase of the window is left out."""
        turnover = np.where(self.scene.decided, self.scene.track.turnover, -1.0)
        turnover[0] = -1.0
        order = [int(p) for p in np.argsort(-turnover, kind="stable") if turnover[p] >= 0]
        return [p for p in order if places is None or p in places][:count]

    def card(self, place: int, ticker: str | None = None) -> Card:
        """The card of one decision of the scene.

        Parameters
        ----------
        ticker : name whose holding it explains; by default that of the largest trade, and no holding.
        """
        scene, subject = self.scene, self.scene.subject
        track, row = scene.track, int(scene.rows[place])
        change = scene.target[place, :-1] - track.drifted[place, :-1]
        focus = int(np.abs(change).argmax()) if ticker is None else subject.assets.index(ticker)
        state, entered = scene.state_at(place), bool(scene.rate[place] == 1.0)
        wanted: Target = (lambda d: d.aim[:, focus]) if entered else (lambda d: d.mean[:, focus])
        name = subject.assets[focus]

        def why(what: str, target: Target) -> Reasons:
            return reasons(what, integrated_gradients(subject.actor, subject, state, target), state)

        tailed = decision.tail(subject.market, row, track.weights[place], track.drifted[place])
        search = Search(subject, state)
        leader = int(scene.gate[place].argmax())
        bought = bool(change[focus] > 0)
        turned = trade_margin(focus, float(track.drifted[place, focus]), bought)
        flips = [search.flip(f"{name} is {'sold' if bought else 'bought'} instead", turned)]
        if len(subject.spec.experts) > 1:
            question = f"another expert than {subject.spec.experts[leader]} leads the gate"
            flips.insert(0, search.flip(question, leader_margin(leader)))
        return Card(
            date=str(subject.market.dates[row]),
            unit=subject.market.calendar.unit,
            window=self.name,
            provenance=self.provenance,
            entered=entered,
            turnover=float(track.turnover[place]),
            cost=float(track.cost[place]),
            rate=float(scene.rate[place]),
            gate=dict(zip(subject.spec.experts, scene.gate[place].tolist(), strict=True)),
            focus=name,
            lines=self._lines(place, tailed),
            regime=reading(self.gauges, int(subject.market.regime[row]), row, subject.market.calendar.year),
            why_trade=why(f"weight asked for {name}", wanted),
            why_aim=why(f"{name} in the aim", lambda d: d.aim[:, focus]),
            flips=tuple(flips),
            leaders=leaders_by_regime(subject, state),
            value_distribution=value_distribution(scene, place),
            calibration=self.calibration,
            calibration_window=self.judge[0] if self.judge else self.name,
            tail=tailed,
            novelty=self.train_days.novelty(row),
            alternatives=(others := decision.alternatives(scene, place)),
            outcome=outcome(scene, place, others),
            holding=None if ticker is None else decision.holding(scene, place, focus),
        )

    def _lines(self, place: int, tailed: decision.Tail) -> tuple[Line, ...]:
        scene, track, parts = self.scene, self.scene.track, self.parts
        trade, cost = track.weights[place] - track.drifted[place], scene.costs[place]
        columns = (track.drifted[place], scene.target[place], track.weights[place], trade, cost)
        experts = map(tuple, parts.experts[place].T.tolist())
        ends = (experts, parts.execution[place].tolist(), tailed.marginal, tailed.parts)
        rows = zip(scene.subject.assets, *(column.tolist() for column in columns), *ends, strict=True)
        return tuple(Line(*row) for row in rows)


def reasons(subject: str, found: Attribution, state: Any) -> Reasons:
    """The largest shares of an attribution, the others summed."""
    top = np.argsort(-np.abs(found.shares), kind="stable")[:REASONS].tolist()
    listed = tuple(Reason(found.inputs[p].label, float(found.shares[p]), found.inputs[p].value(state)) for p in top)
    rest = float(found.shares.sum() - sum(one.share for one in listed))
    return Reasons(subject, found.value, found.average, listed, rest, found.residual, found.steps)


def reading(gauges: Gauges, label: int, row: int, periods: int = TRADING_YEAR) -> RegimeReading:
    """Regime of one row, with what its label was judged by; `periods` rows are a year."""
    volatility, stable, enter, leave, loss, enter_crisis, leave_crisis = (float(gauge[row]) for gauge in gauges)
    year = periods**0.5
    levels = {"stable": stable, "leaves_volatile": leave, "enters_volatile": enter}
    distance = {name: known((volatility - level) * year) for name, level in levels.items()}
    distance |= {"leaves_crisis": loss - leave_crisis, "enters_crisis": loss - enter_crisis}
    return RegimeReading(
        label="normal (no label yet)" if label == NO_LABEL else REGIMES[label],
        volatility=known(volatility * year),
        stable=known(stable * year),
        leaves_volatile=known(leave * year),
        enters_volatile=known(enter * year),
        loss=loss,
        enters_crisis=enter_crisis,
        leaves_crisis=leave_crisis,
        distance={name: value for name, value in distance.items() if value is not None},
    )


def outcome(scene: DecisionTrace, place: int, others: tuple[decision.Alternative, ...]) -> DecisionOutcome | None:
    """What the days after a decision brought, as far as the window goes; None where none is known yet."""
    market, row = scene.subject.market, int(scene.rows[place])
    days = min(market.calendar.rows(HORIZON), scene.known - 1 - row)
    if days < 1:
        return None
    following = market.returns[row + 1 : row + 1 + days]
    grown: Floats = np.prod(1.0 + following, axis=0)
    return DecisionOutcome(
        date=str(scene.track.dates[place]),
        net=float(scene.track.net[place]),
        benchmark=float(market.benchmark[row + 1]),
        days=days,
        next=tuple(following[0].tolist()),
        later=tuple((grown - 1.0).tolist()),
        alternatives={
            one.name: (float(one.weights @ (1.0 + following[0]) - 1.0), float(one.weights @ grown - 1.0))
            for one in others
        },
    )
