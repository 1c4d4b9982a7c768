"""The one ledger: which weights are executed, what they cost, what they earn, and how they drift.

Simulator, replay, baselines and backtest all book through `execute` and `book`, so that a cost is charged in one
place only. Both work alike on numpy arrays and torch tensors; the last axis holds the n assets, cash last.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from finflow.data.market import ABSENT, TRADABLE
from finflow.schema.env import Env

ROUNDING = 1e-9
"""Cash between this below zero and zero is what rounding left; cash below that is borrowed."""


@dataclass(frozen=True)
class Accounting:
    """What a trade costs, and the rules a desk sets; `None` or 0 switches a rule off.

    Attributes
    ----------
    cost_rate : cost of a traded unit of notional (fraction), commission and slippage together.
    max_weight : cap of a single risky name; what is above it goes to cash.
    min_cash : least cash after a decision.
    no_trade_band : a decision whose two-way turnover is below it is not executed.
    max_turnover : most two-way turnover of one decision; beyond it, the way towards the target is cut short.
    """

    cost_rate: float
    max_weight: float | None = None
    min_cash: float = 0.0
    no_trade_band: float = 0.0
    max_turnover: float | None = None

    @classmethod
    def of(cls, env: Env) -> "Accounting":
        """Accounting of an environment's configuration."""
        return cls(cost_rate=env.cost_rate, **env.limits.model_dump())


class Booked(NamedTuple):
    """What one day did to a portfolio; every field is a fraction of NAV.

    turnover [...] two-way, over risky assets; cost [...]; gross and net return [...]; drifted [..., n] weights
    before the next decision.
    """

    turnover: Any
    cost: Any
    gross: Any
    net: Any
    drifted: Any


def namespace(array: Any) -> ModuleType:
    """`torch` for a tensor, else `numpy`: the functions of one array's own library."""
    return torch if isinstance(array, torch.Tensor) else np


def traded(executed: Any, drifted: Any) -> Any:
    """Two-way turnover sum_i |w*_i - w-_i| over risky assets, [..., n] x 2 -> [...]."""
    return abs(executed[..., :-1] - drifted[..., :-1]).sum(-1)


def execute(target: Any, drifted: Any, status: Any, decide: Any, accounting: Accounting) -> Any:
    """Weights that really stand after a decision.

    In this order: positions whose price has ended are closed into cash; frozen names stay as they are and the
    target is spread over what is left; per-name cap and minimum cash; no-trade band; turnover cap. On a day
    without a decision only the closing happens.

    Parameters
    ----------
    target : [..., n] wanted weights, non-negative, any positive sum; one that borrows (cash below 0) sums to 1 and
        is not spread anew over what frozen names leave: they stay, the others get their weights, cash the rest.
    drifted : [..., n] weights before the decision, summing to 1.
    status : [..., n] int, `ABSENT`, `FROZEN` or `TRADABLE`; cash is always tradable. None says that every name is
        tradable and every portfolio decides: the same numbers to the bit, for a third of the work.
    decide : [...] bool, whether the portfolio may be changed.
    accounting : the rules.

    Returns
    -------
    [..., n] executed weights summing to 1, non-negative but for cash that was borrowed before or is in the target.
    """
    xp = namespace(target)
    held, free, tradable = drifted, None, 1.0
    if status is not None:
        held, free = _settle(drifted * (status != ABSENT)), status == TRADABLE
        tradable = free[..., :-1]
    elif accounting.no_trade_band > 0 or accounting.max_turnover is not None:
        held = _settle(drifted * 1.0)
    executed = _spread(target, held, free)
    if accounting.max_weight is not None:
        excess = (executed[..., :-1] - accounting.max_weight).clip(0.0) * tradable
        executed[..., :-1] -= excess
        executed[..., -1] += excess.sum(-1)
    if accounting.min_cash > 0:
        risky = executed[..., :-1] * tradable
        missing = (accounting.min_cash - executed[..., -1]).clip(0.0)
        invested = risky.sum(-1)
        share = (missing / xp.where(invested > 0, invested, 1.0)).clip(0.0, 1.0)
        executed[..., :-1] -= risky * share[..., None]
        executed[..., -1] += invested * share
    if accounting.no_trade_band > 0:
        idle = traded(executed, held) < accounting.no_trade_band
        executed = xp.where(idle[..., None], held, executed)
    if accounting.max_turnover is not None:
        turnover = traded(executed, held)
        part = accounting.max_turnover / xp.where(turnover > 0, turnover, 1.0)
        executed = held + (executed - held) * xp.where(turnover > accounting.max_turnover, part, 1.0)[..., None]
    return executed if status is None else xp.where(decide[..., None], executed, held)


def _settle(weights: Any) -> Any:
    """Weights [..., n], changed in place, whose cash is what the others leave: they sum to 1 whatever was rounded."""
    xp = namespace(weights)
    cash = 1.0 - weights[..., :-1].sum(-1)
    weights[..., -1] = xp.where((cash < 0) & (cash > -ROUNDING), 0.0, cash)
    return weights


def _spread(target: Any, held: Any, free: Any) -> Any:
    """Weights [..., n] of a target where names that are not `free` (None: all are) stay as held; summing to 1."""
    xp = namespace(target)
    wanted, stuck, room = target, 0.0, 1.0
    if free is not None:
        wanted, stuck = target * free, held * ~free
        room = (1.0 - stuck.sum(-1)).clip(0.0)
    total = wanted.sum(-1)
    share = xp.where(target[..., -1] < -ROUNDING, 1.0, room / (total + (total <= 0)))
    return _settle(stuck + wanted * share[..., None])


def book(executed: Any, drifted: Any, returns_next: Any, cost_rate: float) -> Booked:
    """Charge the trade, earn the next day's returns, let the weights drift.

    net = (1 - cost_rate * turnover) (1 + w . r) - 1; w- = w (1 + r) / (1 + w . r).

    Parameters
    ----------
    executed, drifted : [..., n] weights after and before the decision.
    returns_next : [..., n] simple returns from this close to the next.
    cost_rate : cost of a traded unit of notional, as a fraction.
    """
    xp = namespace(executed)
    turnover = traded(executed, drifted)
    cost = cost_rate * turnover
    earned = executed * returns_next
    gross = earned.sum(-1)
    growth = 1.0 + gross
    left = xp.where(growth > 0, growth, 1.0)  # a portfolio of -100 % has no weights left to drift
    after = (executed + earned) / left[..., None]
    return Booked(turnover, cost, gross, (1.0 - cost) * growth - 1.0, after)
