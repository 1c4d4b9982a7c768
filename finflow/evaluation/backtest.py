"""Backtests: a policy, a baseline or a table of targets through the simulator over one window.

Baselines run at the rebalancing frequencies of the comparison. A task holds the candidate policy, the market with its
rules, and the bootstrap of intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.baselines import EQUAL, HOLD, baseline_targets, online_selection_targets
from finflow.allocators.priors import equal_weights
from finflow.data.features import FeatureScaling
from finflow.data.market import ABSENT, TRADABLE, Fold, Market, Window, decision_days
from finflow.envs.ledger import Accounting
from finflow.envs.simulator import Simulator, Step
from finflow.errors import DataError
from finflow.evaluation.result import Floats, Track
from finflow.schema import OnlineSelection
from finflow.seeding import numpy_stream

Rows = NDArray[np.int64]
Strategy = Callable[[Rows, Floats, Floats], Floats]
"""(rows [E], drifted [E, n], drawdown [E] = ln(peak / NAV)) -> target weights [E, n], called on decision days."""


class Together(Protocol):
    """Strategies that decide in one call, a row for each of `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in the order of their rows."""
        ...

    def act(self, rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        """See `Strategy`."""
        ...


@dataclass(frozen=True)
class Plan:
    """Targets fixed in advance, with decision days of their own.

    targets [T, n], row t decided at the close of t, a row of NaN holds; decide [T] bool.
    """

    targets: Floats
    decide: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[T] days on which this plan trades."""
        return self.decide & ~np.isnan(self.targets).any(axis=1)


Members = list[tuple[tuple[str, ...], Strategy | Plan]]
"""Names and what decides for them in one call."""


def backtest(
    market: Market,
    window: Window,
    accounting: Accounting,
    strategies: Mapping[str, Strategy | Plan] | Together,
    *,
    held: Floats | None = None,
) -> dict[str, Track]:
    """Run strategies over `window`, each from cash, or from `held` [n], side by side through the one ledger.

    A callable decides on the market's decision days, a plan on its own; both also on the first day of the
    window, whatever the calendar, so that all are invested from the same close on.

    Returns
    -------
    dict of Track
        By name, in the order of `strategies`.

    Raises
    ------
    DataError
        If the window does not lie inside the market, or a target is not finite on a decision day.
    """
    if window.start < 1 or window.stop > len(market.dates) or len(window) < 1:
        raise DataError(
            f"window [{window.start}, {window.stop}) does not fit a market of {len(market.dates)} days; "
            "it needs a day before its first return: choose another fold or longer data"
        )
    members: Members
    if isinstance(strategies, Mapping):
        members = [((name,), strategy) for name, strategy in strategies.items()]
    else:
        members = [(strategies.names, strategies.act)]
    groups: dict[bytes, tuple[NDArray[np.bool_], Members]] = {}
    for names, strategy in members:
        mask = (strategy.mask if isinstance(strategy, Plan) else market.decision).copy()
        mask[window.start - 1] |= not isinstance(strategy, Plan) or not np.isnan(strategy.targets[window.start - 1, 0])
        groups.setdefault(mask.tobytes(), (mask, []))[1].append((names, strategy))
    tracks: dict[str, Track] = {}
    for mask, alike in groups.values():
        view = replace(market, decision=mask, benchmark=np.zeros(len(market.dates)))  # no reward is asked for
        tracks.update(_run(view, window, accounting, alike, held))
    return {name: tracks[name] for names, _ in members for name in names}


def _run(
    market: Market, window: Window, accounting: Accounting, members: Members, held: Floats | None
) -> dict[str, Track]:
    """Run strategies that decide on the same days, `market.decision`, in one simulator."""
    simulator = Simulator(market, accounting)
    rows = np.asarray(window.decisions, dtype=np.int64)
    names = [name for own, _ in members for name in own]
    slots = np.split(np.arange(len(names)), np.cumsum([len(own) for own, _ in members])[:-1])
    many = (len(names), 1)
    simulator.reset(np.tile(rows, many), None if held is None else np.tile(held, many))
    steps: list[Step] = []
    alive: list[NDArray[np.bool_]] = []
    for row in rows:
        target = simulator.drifted.copy()
        alive.append(simulator.active)
        if market.decision[row]:
            for at, (_, strategy) in zip(slots, members, strict=True):
                live = at[simulator.active[at]]
                if len(live):
                    target[live] = _targets(strategy, row, simulator, at)[simulator.active[at]]
            _check(names, target, market, row)
        steps.append(simulator.step(target))
    return {
        name: _track(name, slot, market, rows, steps, np.array([a[slot] for a in alive]))
        for slot, name in enumerate(names)
    }


def _targets(strategy: Strategy | Plan, row: int, simulator: Simulator, at: NDArray[np.intp]) -> Floats:
    """Target weights [len(at), n]."""
    if isinstance(strategy, Plan):
        return strategy.targets[row][None]
    return strategy(np.full(len(at), row), simulator.drifted[at], simulator.drawdown[at])


def _check(names: Sequence[str], target: Floats, market: Market, row: int) -> None:
    finite = np.isfinite(target)
    if not finite.all():
        slot, asset = np.argwhere(~finite)[0]
        raise DataError(
            f"strategy {names[slot]!r}, {market.dates[row]}, {market.assets[asset]}: target weight is not finite; "
            "return numbers"
        )


def _track(name: str, slot: int, market: Market, rows: Rows, steps: list[Step], alive: NDArray[np.bool_]) -> Track:
    """Gather one strategy's steps; a ruined one (NAV 0) stands still, neither trading nor earning."""

    def gather(values: list[Floats]) -> Floats:
        return np.where(alive, np.array([v[slot] for v in values]), 0.0)

    before = np.array([s.before[slot] for s in steps])
    closed = (before[:, :-1] > 0) & (market.status[rows][:, :-1] == ABSENT) & alive[:, None]
    return Track(
        name=name,
        dates=market.dates[rows + 1],
        weights=np.array([s.executed[slot] for s in steps]),
        drifted=before,
        turnover=gather([s.booked.turnover for s in steps]),
        cost=gather([s.booked.cost for s in steps]),
        gross=gather([s.booked.gross for s in steps]),
        net=gather([s.booked.net for s in steps]),
        closures=int(closed.sum()),
        year=market.calendar.year,
    )


def lagged(strategy: Strategy) -> Strategy:
    """The same trades, each executed at the decision day that follows; the entry of the window at once.

    The trade is delayed, not the weights: otherwise a policy that trades a little each day would undo every day's
    drift, and pay for it. The strategy decides from what it holds once its open order is executed: it would order the
    same trade twice otherwise.
    """
    waiting: list[Floats] = []

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        if not waiting:
            waiting.append(np.zeros_like(drifted))
            return strategy(rows, drifted, drawdown)
        executed = (drifted + waiting.pop()).clip(0.0)
        executed = executed / executed.sum(1, keepdims=True)
        waiting.append(strategy(rows, executed, drawdown) - executed)
        return executed

    return act


MONTHLY = f"{EQUAL} monthly"
BENCHMARK = "benchmark"
"""Name of its track."""


def equal_weight_name(frequency: str) -> str:
    """Name of 1/N rebalanced at `frequency` ("daily", "weekly", "monthly"), e.g. "1/N daily"."""
    return f"{EQUAL} {frequency}"


def equal_weight_plan(market: Market) -> Plan:
    """1/N over the names tradable at t, on the market's decision days; all cash where there is none."""
    return Plan(equal_weights(market.status[:, :-1] == TRADABLE), market.decision)


def equal_weight_track(market: Market, window: Window, accounting: Accounting) -> Track:
    """1/N at the policy's frequency, the reference of a validation score."""
    name = equal_weight_name(market.rebalance)
    return backtest(market, window, accounting, {name: equal_weight_plan(market)})[name]


def baseline_tracks(market: Market, window: Window, accounting: Accounting) -> dict[str, Track]:
    """Every baseline over `window`, through the same ledger: 1/N at the policy's frequency, then all monthly.

    Monthly means month-end closes, and the first day of the window, at which all of them are bought. Buy and hold
    is bought there and left alone. With a monthly policy there is one 1/N.
    """
    monthly = decision_days(market.dates, "monthly", market.calendar)
    decisions = np.asarray(window.decisions, dtype=np.intp)
    rows = decisions[monthly[decisions] | (decisions == decisions[0])]
    plans = {equal_weight_name(market.rebalance): equal_weight_plan(market)}
    always = np.ones(len(market.dates), dtype=np.bool_)
    for name, targets in baseline_targets(market, rows).items():
        plans[MONTHLY if name == EQUAL else name] = Plan(targets, always)
    return backtest(market, window, accounting, plans)


def frequent_tracks(market: Market, window: Window, accounting: Accounting) -> dict[str, Track]:
    """The baselines of `baseline_tracks` once more, rebalanced as often as the policy: "minimum variance, daily".

    1/N is there already, buy and hold never rebalances. Nothing where the policy itself is monthly.
    """
    if market.rebalance == "monthly":
        return {}
    decisions = np.asarray(window.decisions, dtype=np.intp)
    rows = decisions[market.decision[decisions] | (decisions == decisions[0])]
    always = np.ones(len(market.dates), dtype=np.bool_)
    plans = {
        f"{name}, {market.rebalance}": Plan(targets, always)
        for name, targets in baseline_targets(market, rows).items()
        if name not in (EQUAL, HOLD)
    }
    return backtest(market, window, accounting, plans)


def online_selection_tracks(
    market: Market, window: Window, accounting: Accounting, names: Sequence[OnlineSelection]
) -> dict[str, Track]:
    """Classical algorithms on the market's decision days, by their names in capitals: "OLMAR"."""
    plans = {name.upper(): Plan(online_selection_targets(market, name), market.decision) for name in names}
    return backtest(market, window, accounting, plans)


def benchmark_track(market: Market, window: Window) -> Track:
    """`market.benchmark` over `window`, before cost; weights have no columns, so what needs them is undefined."""
    rows = slice(window.start, window.stop)
    net = market.benchmark[rows]
    nothing, unknown = np.zeros(len(net)), np.zeros((len(net), 0))
    return Track(
        BENCHMARK, market.dates[rows], unknown, unknown, nothing, nothing, net, net, closures=0,
        year=market.calendar.year,
    )  # fmt: skip


POLICY = "policy"


class Policy(Protocol):
    """A policy under evaluation: it decides, and explains each decision by gate and rate."""

    def act(self, rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        """Target weights [E, n] at rows [E], weights before the decision [E, n], ln(peak / NAV) [E]."""
        ...

    def explain(self, rows: Rows, drifted: Floats, drawdown: Floats) -> tuple[Floats, Floats]:
        """Gate [E, K] over the experts and trading rate [E] of the same decisions."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A policy to evaluate, with its parts.

    Attributes
    ----------
    policy : or the track of a strategy whose returns are given; figures that need its decisions are then left out.
    scaling : of the policy's features, which the linear tilt uses too.
    experts : K names of the gate's columns; without experts there is no part to take away, and nothing to explain.
    variants : the whole policy first, then without one part each, for the reality checks; None compares nothing.
    diagnostics : figures of its training, for the report.
    scalable : whether it decides on train rows too, by whose volatility it is scaled to that of 1/N.
    """

    policy: Policy | Track
    scaling: FeatureScaling
    experts: Sequence[str]
    variants: Together | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict[str, float])
    scalable: bool = True


@dataclass(frozen=True)
class Task:
    """A market with its fold, and the costs and rules of trading there."""

    market: Market
    fold: Fold
    accounting: Accounting

    def track(self, window: Window, strategy: Strategy | Plan, name: str = POLICY) -> Track:
        """One strategy over a window, see `backtest`."""
        return backtest(self.market, window, self.accounting, {name: strategy})[name]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: bootstrap samples, length of the circular blocks in rows, and the seed of all draws."""

    samples: int
    block_days: int
    seed: int

    def rng(self, stream: str) -> np.random.Generator:
        """The named stream of one draw."""
        return numpy_stream(self.seed, stream)
