"""The verdict in words, and its interval relative to zero."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from finflow.data.market import unit_of
from finflow.evaluation.result import Comparison, Evaluation, Verdict

CLASSES = {"BEATS": "beats", "WORSE THAN": "worse", "INDISTINGUISHABLE FROM": "level"}
Estimate = Verdict | Comparison
"""Either holds a difference of Sharpe ratios with its interval; nan where undefined."""


@dataclass(frozen=True)
class Interval:
    """Places along the interval's axis, in % of its width: zero, both ends, the estimate; and the axis' ends."""

    zero: float
    low: float
    high: float
    difference: float
    axis: tuple[str, str]


@dataclass(frozen=True)
class VerdictView:
    """Text of one verdict: `head` and `tail` are together its printed line."""

    kind: str
    head: str
    tail: str
    meaning: str
    method: str
    interval: Interval | None


def common_reach(estimates: Iterable[Estimate]) -> float:
    """Half the width of the axis on which all the intervals fit, zero in its middle; 0 where none is defined."""
    finite = [abs(x) for e in estimates for x in (e.low, e.high, e.difference) if math.isfinite(x)]
    return max(finite, default=0.0) * 1.15


def interval(estimate: Estimate, reach: float) -> Interval | None:
    """Where an interval stands on the axis from `-reach` to `reach`; None where it is undefined."""
    values = (0.0, estimate.low, estimate.high, estimate.difference)
    if reach == 0 or not all(math.isfinite(x) for x in values):
        return None
    places = [round(50 + 50 * value / reach, 2) for value in values]
    return Interval(*places, axis=(f"-{reach:.2f}", f"+{reach:.2f}"))


def tone(estimate: Estimate) -> str:
    """The colour class of an interval: wholly above zero, wholly below, or over it."""
    return "beats" if estimate.low > 0 else "worse" if estimate.high < 0 else "level"


def verdict_views(evaluation: Evaluation) -> tuple[VerdictView, VerdictView | None, VerdictView | None]:
    """The verdict, that of the policy scaled to the opponent's volatility, and that against the user's own benchmark.

    All on one axis; the second is None where it cannot be scaled, the last where 1/N is the benchmark.
    """
    verdicts = (evaluation.verdict, evaluation.scaled_verdict, evaluation.benchmark)
    reach = common_reach([verdict for verdict in verdicts if verdict is not None])
    unit = unit_of(evaluation.policy.year)
    length = f"{len(evaluation.policy.dates):,} {unit}s"

    def view(verdict: Verdict) -> VerdictView:
        head, separator, tail = verdict.line().removeprefix("Verdict: ").partition(" (")
        meaning, method = _meaning(verdict, length), _method(verdict, unit)
        return VerdictView(CLASSES[verdict.outcome], head, separator + tail, meaning, method, interval(verdict, reach))

    scaled, benchmark = (verdict and view(verdict) for verdict in verdicts[1:])
    return view(evaluation.verdict), scaled, benchmark


def scaling(verdict: Verdict | None) -> str:
    """How the scaled policy was made; nothing where there is none."""
    if verdict is None:
        return ""
    if not math.isfinite(verdict.scale):
        return "No scale is defined."
    kind = "with leverage, the cash borrowed" if verdict.leveraged else "with cash"
    return f"Risky weights × {verdict.scale:.2f}, {kind}."


def _meaning(verdict: Verdict, length: str) -> str:
    if not math.isfinite(verdict.difference):
        return f"A Sharpe ratio is undefined over these {length}, so nothing can be said."
    size = f"{abs(verdict.difference):.2f}"
    side = "above" if verdict.difference >= 0 else "below"
    start = f"Over {length} and net of costs, the policy's Sharpe ratio was {size} {side} that of {verdict.opponent}"
    if verdict.outcome == "BEATS":
        return f"{start}. The whole 95 % interval lies above zero: more than luck on this window."
    if verdict.outcome == "WORSE THAN":
        return f"{start}. The whole 95 % interval lies below zero: holding {verdict.opponent} was the better choice."
    return f"{start}. The 95 % interval holds zero: this window cannot tell the two apart."


def _method(verdict: Verdict, unit: str) -> str:
    text = f"Compared with {verdict.opponent}; studentised block bootstrap, {verdict.samples:,} samples"
    p_value = "" if verdict.p_value is None else f"; p = {verdict.p_value:.3f}"
    return f"{text}, blocks of {verdict.block_days} {unit}s{p_value}."
