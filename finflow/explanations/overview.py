"""Explanations of a whole window: importance of inputs, gate by regime, parts of return and risk."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import REGIMES
from finflow.evaluation.files import plain
from finflow.evaluation.metrics import CRISES, decision_regimes
from finflow.evaluation.result import Floats
from finflow.explanations import performance
from finflow.explanations.attribution import Importance, importance
from finflow.explanations.card import Card, Explainer
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.value_distribution import Calibration


@dataclass(frozen=True)
class GateRow:
    """Days of one regime, and the mean share of each expert [K] and mean trading rate on them."""

    regime: str
    days: int
    gate: tuple[float, ...]
    rate: float


@dataclass(frozen=True)
class Overview:
    """Everything that the report explains of one or several windows.

    net, volatility : of the whole, which experts and names each sum to. calibration : by policy. sectors, sector_of
    (risky name -> sector) : where they are given. cards : of chosen days.
    """

    importance: Importance
    experts: tuple[str, ...]
    gate: tuple[GateRow, ...]
    contributions: tuple[performance.Contribution, ...]
    names: tuple[performance.NamePart, ...]
    net: float
    volatility: float
    calibration: dict[str, Calibration]
    sectors: performance.ActiveParts | None
    sector_of: dict[str, str]
    cards: tuple[Card, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, of the cards their dates alone; what is undefined is None."""
        return plain(asdict(replace(self, cards=()))) | {"cards": [card.date for card in self.cards]}


def overview(
    windows: Sequence[Sequence[DecisionTrace]],
    explainers: dict[str, Explainer],
    largest: int,
    sectors: Sequence[str] | None = None,
) -> Overview:
    """Explain windows end to end, each of one run, or of several whose targets were averaged.

    Parameters
    ----------
    windows : of each window the scenes of its runs, on one track.
    explainers : by label, of each window's policy, averaged where it is that of several runs.
    largest : cards for so many of each window's largest trades, beside the first days of known crises.
    sectors : of the n - 1 risky names.
    """
    first = [scenes[0] for scenes in windows]
    net = np.concatenate([scene.track.net for scene in first])
    parts = [performance.sleeves(scenes) for scenes in windows]
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("earned", "cost", "share"))
    joined = performance.Sleeves(parts[0].names, *columns)
    found = {label: one.calibration for label, one in explainers.items()}
    return Overview(
        importance=importance([scene for scenes in windows for scene in scenes]),
        experts=first[0].subject.spec.experts,
        gate=gate_by_regime(windows),
        contributions=performance.contributions(joined, net, first[0].track.year),
        names=performance.name_parts(first),
        net=float(np.prod(1.0 + net) - 1.0),
        volatility=float(np.std(net, ddof=1)) * first[0].track.year ** 0.5 if len(net) > 1 else 0.0,
        calibration={label: one for label, one in found.items() if one is not None},
        sectors=None if sectors is None else performance.active_parts(first, sectors),
        sector_of={} if sectors is None else dict(zip(first[0].subject.assets[:-1], sectors, strict=True)),
        cards=tuple(one.card(place) for one in explainers.values() for place in chosen_days(one, largest)),
    )


def chosen_days(explainer: Explainer, largest: int) -> list[int]:
    """Places of the largest trades and of the first decisions in known crises that began in the window, by date."""
    dates = explainer.scene.subject.market.dates[explainer.scene.rows]
    begun = [int(np.searchsorted(dates, np.datetime64(day, "D"))) for _, day, _ in CRISES]
    decided = np.flatnonzero(explainer.scene.decided)
    places = {int(decided[np.searchsorted(decided, p)]) for p in begun if 0 < p <= decided[-1]}
    return sorted(places | set(explainer.largest(largest)))


def gate_by_regime(windows: Sequence[Sequence[DecisionTrace]]) -> tuple[GateRow, ...]:
    """Mean gate and rate of the decisions under each causal label; regimes without a decision are left out."""
    labels: list[NDArray[np.int8]] = []
    gates: list[Floats] = []
    rates: list[Floats] = []
    for scenes in windows:
        first = scenes[0]
        labels.append(decision_regimes(first.subject.market, first.window)[first.decided])
        gates.append(np.mean([scene.gate for scene in scenes], axis=0)[first.decided])
        rates.append(np.mean([scene.rate for scene in scenes], axis=0)[first.decided])
    label, gate, rate = np.concatenate(labels), np.concatenate(gates), np.concatenate(rates)
    rows = ((name, label == index) for index, name in enumerate(REGIMES))
    return tuple(
        GateRow(name, int(days.sum()), tuple(gate[days].mean(0).tolist()), float(rate[days].mean()))
        for name, days in rows
        if days.any()
    )
