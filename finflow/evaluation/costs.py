"""Sensitivity to costs: the same decisions booked at other costs, and the break-even cost."""

from dataclasses import replace

import numpy as np
from scipy.optimize import root_scalar

from finflow.data.market import Market, Window
from finflow.envs.ledger import book
from finflow.evaluation.metrics import sharpe_ratio, track_metrics
from finflow.evaluation.result import CostRow, Track

BPS = (0.0, 5.0, 10.0, 25.0)
HIGHEST_BPS = 500.0  # upper end of the search for a break-even cost


def recost(track: Track, market: Market, window: Window, bps: float) -> Track:
    """Book a track's decisions again at `bps` basis points of traded notional.

    Costs are paid out of NAV and do not move weights, so this equals a new simulation of the same targets bit
    for bit. A policy whose decisions depend on its own drawdown might have decided otherwise; its decisions are kept.
    """
    rate = bps / 1e4
    booked = book(track.weights, track.drifted, market.returns[window.start : window.stop], rate)
    return replace(track, cost=booked.cost, net=booked.net)


def cost_table(policy: Track, opponent: Track, market: Market, window: Window) -> list[CostRow]:
    """Policy and opponent at each cost of `BPS`, decisions unchanged."""
    rows: list[CostRow] = []
    for cost in BPS:
        ours, theirs = recost(policy, market, window, cost), recost(opponent, market, window, cost)
        ratios = (sharpe_ratio(track.net, track.year) for track in (ours, theirs))
        rows.append(CostRow(cost, next(ratios), track_metrics(ours).annual_return, next(ratios)))
    return rows


def break_even_bps(policy: Track, opponent: Track, market: Market, window: Window) -> float | None:
    """Lowest cost (bp) at which policy and opponent, both charged it, have the same Sharpe ratio.

    None where the difference keeps its sign up to `HIGHEST_BPS`, or is undefined.
    """

    def lead(bps: float) -> float:
        ours = sharpe_ratio(recost(policy, market, window, bps).net, policy.year)
        theirs = sharpe_ratio(recost(opponent, market, window, bps).net, opponent.year)
        return np.nan if ours is None or theirs is None else ours - theirs

    grid = np.linspace(0.0, HIGHEST_BPS, 101)
    leads = np.array([lead(bps) for bps in grid])
    crossings = np.flatnonzero(leads[:-1] * leads[1:] < 0)
    if len(crossings) == 0:
        return None
    at = int(crossings[0])
    return root_scalar(lead, bracket=(grid[at], grid[at + 1]), xtol=1e-6).root
