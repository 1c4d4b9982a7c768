"""One decision in parts: the trade by expert, its alternatives, why a holding is as large as it is, and tail loss."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from finflow.allocators.baselines import EQUAL
from finflow.allocators.priors import equal_weights
from finflow.data.market import TRADABLE, Market
from finflow.envs.ledger import Accounting, execute, traded
from finflow.evaluation.backtest import POLICY
from finflow.evaluation.metrics import cvar
from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.performance import EXECUTION, weights_by_expert
from finflow.explanations.value_distribution import many_atoms


class TradeParts(NamedTuple):
    """experts [R, K, n] and execution [R, n]: their sum is the trade, executed minus drifted weights [R, n].

    experts : rate g_k (e_ki - w-_i), since w_bar = (1 - rate) w- + rate sum_k g_k e_k and the shares sum to 1.
    execution : what closings, frozen names, caps, the band and the turnover cap added; float32 leaves about 1e-7.
    """

    experts: Floats
    execution: Floats


def trade_parts(scene: DecisionTrace) -> TradeParts:
    """Parts of every trade of a scene."""
    track = scene.track
    share = scene.gate / scene.gate.sum(1, keepdims=True)  # float32 shares sum to 1 within 1e-7 only
    experts = scene.rate[:, None, None] * share[..., None] * (scene.experts - track.drifted[:, None])
    return TradeParts(experts, (track.weights - track.drifted) - experts.sum(1))


HOLD = "hold"


@dataclass(frozen=True)
class Alternative:
    """One way to act in the same state, through the same ledger.

    weights [n] executed; turnover, cost of getting there, fractions; distance : half L1 distance from the actual ones;
    advantage : critic's mean minus that of the actual weights, units of the reward.
    """

    name: str
    weights: tuple[float, ...]
    turnover: float
    cost: float
    distance: float
    advantage: float


def alternatives(scene: DecisionTrace, place: int) -> tuple[Alternative, ...]:
    """What was done, then each expert alone at the same trading rate, 1/N at once, and hold."""
    subject, market, row = scene.subject, scene.subject.market, int(scene.rows[place])
    held, rate = scene.track.drifted[place], scene.rate[place]
    targets = {
        **{name: held + rate * (e - held) for name, e in zip(subject.spec.experts, scene.experts[place], strict=True)},
        EQUAL: equal_weights(market.status[row, :-1] == TRADABLE),
    }
    accounting = subject.world.accounting
    wanted = np.stack(list(targets.values()))
    many = (len(wanted), market.n)
    acted = np.broadcast_to(scene.decided[place], many[:1])
    status, before = np.broadcast_to(market.status[row], many), np.broadcast_to(held, many)
    executed = execute(wanted, before, status, acted, accounting)
    idle = execute(held[None], held[None], market.status[row][None], np.array([False]), accounting)
    everything = np.concatenate([scene.track.weights[place][None], executed, idle])
    value = many_atoms(subject, scene.state_at(place), everything[None])[0].mean(-1)
    turnover = traded(everything, np.broadcast_to(held, everything.shape))
    distance = 0.5 * np.abs(everything - everything[0]).sum(1)
    columns = (turnover, turnover * accounting.cost_rate, distance, value - value[0])
    weights = map(tuple, everything.tolist())
    rows = zip((POLICY, *targets, HOLD), weights, *(column.tolist() for column in columns), strict=True)
    return tuple(Alternative(*row) for row in rows)


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
    costs = trace.costs[so_far, asset]
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


DAYS = 756
"""Trading days of history."""
LEVEL = 0.05


@dataclass(frozen=True)
class Tail:
    """CVaR 95 % a day of the executed weights; positive is a loss.

    cvar, cvar_before : after and before the trade. marginal [n] : loss of each name on those worst days, which is
    the derivative of CVaR by its weight. parts [n] : weight times marginal; they sum to `cvar`. days : of history.
    """

    cvar: float
    cvar_before: float
    marginal: tuple[float, ...]
    parts: tuple[float, ...]
    days: int


def tail(market: Market, row: int, weights: Floats, before: Floats) -> Tail:
    """Tail of `weights` [n] at the close of `row`, had they been held over the last `DAYS`.

    A day on which a name had no price counts as 0 for it.
    """
    history = market.returns[max(1, row + 1 - market.calendar.rows(DAYS)) : row + 1]
    count = math.ceil(round(LEVEL * len(history), 9))  # as `cvar` counts them
    worst = np.argsort(history @ weights, kind="stable")[:count]
    marginal = -history[worst].mean(0)
    return Tail(
        cvar=float(marginal @ weights),
        cvar_before=cvar(history @ before, LEVEL),
        marginal=tuple(marginal.tolist()),
        parts=tuple((marginal * weights).tolist()),
        days=len(history),
    )
