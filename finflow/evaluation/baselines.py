"""Baselines as tracks over a window, at the rebalancing frequencies of the comparison."""

from collections.abc import Sequence

import numpy as np

from finflow.allocators.baselines import EQUAL, HOLD, baseline_targets, online_selection_targets
from finflow.allocators.signals import equal_weights
from finflow.data.market import TRADABLE, Market, Window, decision_days
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Plan, backtest
from finflow.evaluation.result import Track
from finflow.schema import OnlineSelection

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
