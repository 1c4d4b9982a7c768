"""Backtests: run the policy, the baselines or a table of targets through the simulator over one window."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import ABSENT, Market, Window
from finflow.envs.ledger import Accounting
from finflow.envs.simulator import Simulator, Step
from finflow.errors import DataError
from finflow.evaluation.result import Floats, Track

Rows = NDArray[np.int64]
Strategy = Callable[[Rows, Floats, Floats], Floats]
"""(rows [E], drifted [E, n], drawdown [E] = ln(peak / NAV)) -> target weights [E, n], called on decision days."""


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


def backtest(
    market: Market,
    window: Window,
    accounting: Accounting,
    strategies: Mapping[str, Strategy | Plan],
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
    groups: dict[bytes, tuple[NDArray[np.bool_], list[str]]] = {}
    for name, strategy in strategies.items():
        mask = (strategy.mask if isinstance(strategy, Plan) else market.decision).copy()
        mask[window.start - 1] |= not isinstance(strategy, Plan) or not np.isnan(strategy.targets[window.start - 1, 0])
        groups.setdefault(mask.tobytes(), (mask, []))[1].append(name)
    tracks: dict[str, Track] = {}
    for mask, names in groups.values():
        members = {name: strategies[name] for name in names}
        view = replace(market, decision=mask, benchmark=np.zeros(len(market.dates)))  # no reward is asked for
        tracks.update(_run(view, window, accounting, members, held))
    return {name: tracks[name] for name in strategies}


def _run(
    market: Market,
    window: Window,
    accounting: Accounting,
    strategies: Mapping[str, Strategy | Plan],
    held: Floats | None,
) -> dict[str, Track]:
    """Run strategies that decide on the same days, `market.decision`, in one simulator."""
    simulator = Simulator(market, accounting)
    rows = np.asarray(window.decisions, dtype=np.int64)
    many = (len(strategies), 1)
    simulator.reset(np.tile(rows, many), None if held is None else np.tile(held, many))
    steps: list[Step] = []
    alive: list[NDArray[np.bool_]] = []
    for row in rows:
        target = simulator.drifted.copy()
        alive.append(simulator.active)
        if market.decision[row]:
            for slot, (name, strategy) in enumerate(strategies.items()):
                if alive[-1][slot]:
                    target[slot] = _target(strategy, row, simulator, slot)
                    _check(name, target[slot], market, row)
        steps.append(simulator.step(target))
    return {
        name: _track(name, slot, market, rows, steps, np.array([a[slot] for a in alive]))
        for slot, name in enumerate(strategies)
    }


def _target(strategy: Strategy | Plan, row: int, simulator: Simulator, slot: int) -> Floats:
    if isinstance(strategy, Plan):
        return strategy.targets[row]
    one = slice(slot, slot + 1)
    return strategy(np.array([row]), simulator.drifted[one], simulator.drawdown[one])[0]


def _check(name: str, target: Floats, market: Market, row: int) -> None:
    if not np.isfinite(target).all():
        asset = market.assets[int(np.argmin(np.isfinite(target)))]
        raise DataError(f"strategy {name!r}, {market.dates[row]}, {asset}: target weight is not finite; return numbers")


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
