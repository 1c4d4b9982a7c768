"""A policy followed from the start of its test window to the newest close, whose return is not known yet."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import FROZEN, NO_LABEL, Market, Window
from finflow.envs.ledger import book, execute
from finflow.evaluation.backtest import backtest
from finflow.evaluation.decision_log import decision_log
from finflow.evaluation.files import POLICY
from finflow.evaluation.result import Floats, Track
from finflow.explanations.card import Explainer
from finflow.explanations.decision_trace import DecisionTrace, make_scene, trace_of
from finflow.io.hash_chain import HashChain
from finflow.stages.explaining import critic_window, gauges_of, provenance_of, subject_of
from finflow.stages.run_groups import Group

LIVE = "live"
"""Window of the decisions after the test window."""


def followed(group: Group) -> DecisionTrace:
    """Every decision of the model portfolio, which is bought at the start of the test window; the last is the newest.

    The market of its subject has one more row, see `awaiting`.
    """
    prepared = group.prepared
    known = len(prepared.market.dates)
    subject = replace(subject_of(group), market=awaiting(prepared.market))
    window = Window(prepared.fold.test.start, known + 1)
    track = backtest(subject.market, window, prepared.accounting, {POLICY: group.policy.act})[POLICY]
    return make_scene(subject, window, track, check=False, known=known)


def decision_for(group: Group, model: DecisionTrace, row: int, held: Floats, drawdown: float) -> DecisionTrace:
    """The one decision at the close of `row` for other holdings than the model portfolio's.

    Cash alone is a portfolio that is entered: the whole aim is bought, as at the start of a window.

    Parameters
    ----------
    model : what `followed` gave.
    held : [n] weights, cash last.
    drawdown : ln(peak / NAV), the model portfolio's.
    """
    entered = bool(held[-1] >= 1.0)
    subject = replace(model.subject, policy=group.entering({row}) if entered else group.policy)
    market, accounting, policy = subject.market, subject.world.accounting, subject.policy
    rows, before, fallen = np.array([row]), held[None], np.array([drawdown])
    decide = market.decision[rows] | entered
    executed = execute(policy.act(rows, before, fallen), before, market.status[rows], decide, accounting)
    booked = book(executed, before, market.returns[rows + 1], accounting.cost_rate)
    track = Track(
        POLICY, market.dates[rows + 1], executed, before, booked.turnover, booked.cost, booked.gross, booked.net,
        closures=0, year=market.calendar.year,
    )  # fmt: skip
    return trace_of(subject, Window(row + 1, row + 2), track, fallen, decide, model.known)


def live_explainer(group: Group, trace: DecisionTrace, portfolio: str) -> Explainer:
    """Makes cards of decisions after the test window; `portfolio` says on them whose holdings they start from."""
    facts = provenance_of(group) | {"portfolio": portfolio}
    judge = critic_window(group, LIVE, trace)
    return Explainer(trace, LIVE, gauges_of(group.first), facts, group.first.config.seed, judge)


def model_portfolio(trace: DecisionTrace) -> str:
    """The portfolio of `followed` in words."""
    return f"a model portfolio, bought at the close of {trace.subject.market.dates[trace.rows[0]]}"


def log_of(group: Group) -> HashChain:
    """Where the decisions of a group's policy are logged."""
    return decision_log(group.first.config.output_root, group.first.config.name, group.weights)


def awaiting(market: Market) -> Market:
    """The market with one more row, the close that the newest decision waits for: nothing happens on it.

    A name without a price in the newest row alone stays as it is held, see `unquoted`.
    """
    pending = unquoted(market)
    status, returns = market.status.copy(), market.returns.copy()
    status[-1], returns[-1] = np.where(pending, FROZEN, status[-1]), np.where(pending, 0.0, returns[-1])
    return replace(
        market,
        dates=np.append(market.dates, market.calendar.following(market.dates[-1])),
        close=np.concatenate([market.close, np.full_like(market.close[:1], np.nan)]),
        returns=np.concatenate([returns, np.zeros_like(returns[:1])]),
        status=np.concatenate([status, status[-1:]]),
        regime=np.append(market.regime, np.int8(NO_LABEL)),
        decision=np.append(market.decision, False),
        benchmark=np.append(market.benchmark, 0.0),
    )


def unquoted(market: Market) -> NDArray[np.bool_]:
    """[n] names without a price in the newest row alone: far more often not quoted yet than delisted, so held."""
    priced = np.isfinite(market.close)
    return np.append(priced[-2] & ~priced[-1], False)
