"""The ledger: it executes weights under the rules, charges costs, books returns and lets weights drift; and the reward.

Simulator, replay, baselines and backtest all book through `execute` and `book`, so that a cost is charged in one
place only. Both work alike on numpy arrays and torch tensors; the last axis holds the n assets, cash last.

The reward is the net active log return, minus its risk, tail loss, turnover and new drawdown, each weighted and logged.
"""

from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.data.market import ABSENT, TRADABLE, Market, Window
from finflow.schema.sections import Env, Reward

ROUNDING = 1e-9
"""Negative cash down to this is rounding; below it, cash is borrowed."""

EMPTY = 1e-300
"""Least sum of a target, so that a target of zeros is all cash, not 0 / 0."""


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
    return total(abs(executed - drifted)[..., :-1])


def total(array: Any) -> Any:
    """Sum over the last axis, [..., n] -> [...]; numpy's own sum takes twice as long on short rows."""
    if isinstance(array, np.ndarray):
        return np.vecdot(array, _ones(array.shape[-1]))
    return array.sum(-1)


def at_least(array: Any, least: float) -> Any:
    """Maximum of `array` and `least`; numpy's own function takes twice as long."""
    return np.maximum(array, least) if isinstance(array, np.ndarray) else array.clip(least)


@cache
def _ones(count: int) -> NDArray[np.float64]:
    return np.ones(count)


def possible(mask: Any) -> bool:
    """Whether any entry of `mask` may be set; always True for torch, since reading a tensor waits for its device."""
    return not isinstance(mask, np.ndarray) or bool(np.count_nonzero(mask))


def execute(target: Any, drifted: Any, status: Any, decide: Any, accounting: Accounting) -> Any:
    """Executed weights after a decision.

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
        executed[..., -1] += total(excess)
    if accounting.min_cash > 0:
        risky = executed[..., :-1] * tradable
        missing = (accounting.min_cash - executed[..., -1]).clip(0.0)
        invested = total(risky)
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
    cash = 1.0 - total(weights[..., :-1])
    below = cash < 0.0
    if possible(below):
        cash = namespace(cash).where(below & (cash > -ROUNDING), 0.0, cash)
    weights[..., -1] = cash
    return weights


def _spread(target: Any, held: Any, free: Any) -> Any:
    """Weights [..., n] of a target where names that are not `free` (None: all are) stay as held; summing to 1."""
    if free is None:
        return _settle(target * (1.0 / at_least(total(target), EMPTY))[..., None])
    wanted, stuck = target * free, held * ~free
    share = at_least(1.0 - total(stuck), 0.0) / at_least(total(wanted), EMPTY)
    borrows = target[..., -1] < -ROUNDING
    if possible(borrows):
        share = namespace(target).where(borrows, 1.0 / at_least(total(target), EMPTY), share)
    return _settle(stuck + wanted * share[..., None])


def book(executed: Any, drifted: Any, returns_next: Any, cost_rate: float) -> Booked:
    """Charge the trade, earn the next day's returns, let the weights drift.

    net = (1 - cost_rate * turnover) (1 + w . r) - 1; w- = w (1 + r) / (1 + w . r). `executed` and `drifted` are the
    weights [..., n] after and before the decision, `returns_next` [..., n] simple returns from this close to the next.
    """
    turnover = traded(executed, drifted)
    cost = cost_rate * turnover
    earned = executed * returns_next
    gross = total(earned)
    growth = 1.0 + gross
    left, lost = growth, growth <= 0.0
    if possible(lost):  # a portfolio of -100 % has no weights left to drift
        left = namespace(growth).where(lost, 1.0, growth)
    after = (executed + earned) / left[..., None]
    return Booked(turnover, cost, gross, (1.0 - cost) * growth - 1.0, after)


RUIN = 1e-4  # 1 + net is floored here before its logarithm; less left is ruin, which ends the episode


def next_drawdown(drawdown: Any, net: Any) -> Any:
    """ln(peak / NAV) after a day of net return `net` [...], from `drawdown` [...] before it; never negative."""
    return at_least(drawdown - namespace(net).log(at_least(1.0 + net, RUIN)), 0.0)


@dataclass(frozen=True)
class RewardModel:
    """r = a - lambda_risk a^2 / 2 - lambda_cvar tail - lambda_turn turnover - lambda_dd new drawdown.

    a = c [ln(1 + net) - ln(1 + benchmark)] is the scaled active log return. Summed over days, the first two terms are
    the mean-variance utility of the active return (Moody & Saffell 2001; Ritter 2017).

    Attributes
    ----------
    scale : c, one over the standard deviation of the priors' active log return on train rows.
    tail_threshold : VaR95 of the benchmark's daily log loss on train rows (positive).
    lambda_cvar, lambda_turn, lambda_dd : weights of raw daily fractions, outside c.
    lambda_risk : aversion to active risk, in units of the scaled active return.
    """

    scale: float
    tail_threshold: float
    lambda_cvar: float
    lambda_turn: float
    lambda_dd: float
    lambda_risk: float

    def components(self, net: Any, turnover: Any, log_benchmark: Any, drawdown: Any) -> tuple[dict[str, Any], Any]:
        """Terms of the reward (they sum to it exactly) and the next log drawdown.

        Parameters
        ----------
        net, turnover : [...] net return and two-way turnover of the day, fractions.
        log_benchmark : [...] log return of the benchmark, ln(1 + its simple return).
        drawdown : [...] ln(peak / NAV) before the day, never negative.
        """
        log_net = namespace(net).log(at_least(1.0 + net, RUIN))
        after = at_least(drawdown - log_net, 0.0)
        new = at_least(after - drawdown, 0.0) if self.lambda_dd else after  # its weight is 0: any number will do
        active = self.scale * (log_net - log_benchmark)
        terms = {
            "active": active,
            "risk": (-0.5 * self.lambda_risk) * (active * active),
            "tail": -self.lambda_cvar * at_least(-self.tail_threshold - log_net, 0.0),
            "turnover": -self.lambda_turn * turnover,
            "drawdown": -self.lambda_dd * new,
        }
        return terms, after

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, as they travel with the weights."""
        return asdict(self)


def fit_reward(market: Market, priors: NDArray[np.float64], train: Window, weights: Reward) -> RewardModel:
    """Fit c and the tail threshold on train rows; the lambdas come from the configuration.

    `priors` [T, K, n] are decided at the close of t, the last the benchmark's own.
    """
    decided = np.arange(train.start - 1, train.stop - 1)
    earned = np.einsum("tkn,tn->tk", priors[decided, :-1], market.returns[decided + 1])
    benchmark = np.log1p(market.benchmark[decided + 1])
    active = np.log1p(earned) - benchmark[:, None]
    return RewardModel(
        scale=float(1.0 / active.std()),
        tail_threshold=float(np.quantile(-benchmark, 0.95)),
        **weights.model_dump(),
    )
