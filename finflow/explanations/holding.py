"""Why one holding is as large as it is: who asked for it since the window began, and what happened to it that day."""

from dataclasses import dataclass, replace

import numpy as np

from finflow.envs.ledger import Accounting, execute
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.sleeves import EXECUTION, weights_by_expert

BEFORE = "held before"
"""What a trace of one decision begins with: no expert is known to have asked for it."""


@dataclass(frozen=True)
class Holding:
    """One name's weight after a decision, fractions of net asset value.

    Attributes
    ----------
    since : close at which the portfolio was bought, or the decision's own where it began with other holdings.
    asked : part of the weight by who asked for it, experts and execution; they sum to `weight`.
    start : its weight before the first of these trades; 0 unless the portfolio began with other holdings.
    traded, drift : what all trades since then added, and what prices did to it; with `start` they sum to `weight`.
    cost, cost_since : of its trade that day, and of all its trades since.
    experts : by expert its share of the gate and its own weight for the name; `aim` sums their products.
    before, rate, target : `target` = `before` + `rate` (`aim` - `before`); float32 leaves about 1e-7.
    rules : what each rule of the ledger then added, in its order; `target` and they sum to `weight`.
    cost_rate : of a traded unit of notional.
    """

    asset: str
    weight: float
    since: str
    asked: dict[str, float]
    start: float
    traded: float
    drift: float
    cost: float
    cost_since: float
    experts: dict[str, tuple[float, float]]
    aim: float
    before: float
    rate: float
    target: float
    rules: dict[str, float]
    cost_rate: float


def holding(trace: DecisionTrace, place: int, asset: int) -> Holding:
    """Holding of name number `asset` after the decision at `place`."""
    subject, track = trace.subject, trace.track
    so_far = slice(0, place + 1)
    change = (track.weights - track.drifted)[so_far, asset]
    charge = np.divide(track.cost, track.turnover, out=np.zeros_like(track.cost), where=track.turnover > 0)
    costs = charge[so_far] * np.abs(change)
    start = float(track.drifted[0, asset])  # 0 but for a trace that begins with other holdings
    weight, gate = float(track.weights[place, asset]), trace.gate[place]
    asked = dict(
        zip((*subject.spec.experts, EXECUTION), weights_by_expert(trace, place)[:, asset].tolist(), strict=True)
    )
    if len(trace.rows) == 1:
        kept = (1.0 - float(trace.rate[place])) * start if trace.decided[place] else start
        asked = {**asked, EXECUTION: asked[EXECUTION] - kept, BEFORE: kept}
    traded = float(change.sum())
    return Holding(
        asset=subject.assets[asset],
        weight=weight,
        since=str(subject.market.dates[trace.rows[0]]),
        asked=asked,
        start=start,
        traded=traded,
        drift=weight - start - traded,
        cost=float(costs[-1]),
        cost_since=float(costs.sum()),
        experts={
            name: (float(gate[k]), float(trace.experts[place, k, asset])) for k, name in enumerate(subject.spec.experts)
        },
        aim=float(trace.aim[place, asset]),
        before=float(track.drifted[place, asset]),
        rate=float(trace.rate[place]),
        target=float(trace.target[place, asset]),
        rules={name: float(part[asset]) for name, part in rule_parts(trace, place).items()},
        cost_rate=subject.world.accounting.cost_rate,
    )


def rule_parts(trace: DecisionTrace, place: int) -> dict[str, Floats]:
    """What each of the ledger's rules added to the weights asked for, [n] each: executed minus target in all.

    The ledger applies them one after another, so each is what changes when it joins those before it.
    """
    rules, track = trace.subject.world.accounting, trace.track
    held, status = track.drifted[place], trace.subject.market.status[int(trace.rows[place])]
    free = Accounting(rules.cost_rate)
    capped = replace(free, max_weight=rules.max_weight)
    liquid = replace(capped, min_cash=rules.min_cash)
    banded = replace(liquid, no_trade_band=rules.no_trade_band)
    steps = {
        "closed or frozen names": free,
        "cap of a name": capped,
        "least cash": liquid,
        "no-trade band": banded,
        "turnover cap": rules,
    }
    found: dict[str, Floats] = {}
    before = trace.target[place]
    for name, accounting in steps.items():
        after = execute(trace.target[place][None], held[None], status[None], np.array([True]), accounting)[0]
        found[name], before = after - before, after
    found["no decision that day"] = track.weights[place] - before
    return found
