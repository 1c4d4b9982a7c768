"""Audit for look-ahead: values known at the close of t must keep their bits when later prices change."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.agents.learner import GreedyPolicy
from finflow.allocators import priors as prior_room
from finflow.data import build
from finflow.data.features import FeatureScaling
from finflow.data.market import NO_LABEL, REGIMES, Market, Window
from finflow.data.prices import Prices
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import World
from finflow.evaluation.audit.findings import Difference, Findings, Watched
from finflow.evaluation.audit.perturbations import CHANGES, changed
from finflow.evaluation.backtest import backtest, equal_weight_plan
from finflow.nn.actor import Actor
from finflow.schema.sections import Env

Rows = NDArray[np.int64]

FIRST, LAST = 21, 22
"""Audited rows lie between FIRST and the last LAST rows, so that there are later days to change."""
EARLIER = (0, 1, 5, 21)
"""Rows before t at which the policy decides, beside t itself."""
DRAWDOWN = 0.1
LEDGER_DAYS = 5
"""Decisions up to t of the small backtest."""
ACCOUNTING = "accounting"


@dataclass(frozen=True)
class Subject:
    """The object of an audit: a trained actor and the parts of its market."""

    prices: Prices
    env: Env
    actor: Actor
    scaling: FeatureScaling
    accounting: Accounting
    reward: RewardModel
    device: torch.device

    def market(self, prices: Prices) -> Market:
        """The market of `prices`, never from a cache."""
        return build.market_of(prices, self.env)

    def priors(self, market: Market) -> NDArray[np.float64]:
        """Prior portfolios [T, K, n] of `market`, never from a cache."""
        return prior_room.prior_portfolios(market)

    def policy(self, market: Market, priors: NDArray[np.float64]) -> GreedyPolicy:
        """The trained actor in another market."""
        world = World.of(market, self.scaling.apply, priors, self.accounting, self.reward, self.device)
        return GreedyPolicy(self.actor, world)


def spread_rows(days: int, count: int, rng: np.random.Generator) -> Rows:
    """`count` increasing rows of `days`, one drawn from each of as many equal stretches."""
    edges = np.linspace(FIRST, days - LAST, count + 1)
    return np.unique((edges[:-1] + rng.random(count) * np.diff(edges)).astype(np.int64))


def perturb_futures(findings: Findings, subject: Subject, rows: Rows, deep: int, rng: np.random.Generator) -> None:
    """Compare the past of each of `rows` under every change of its future.

    Parameters
    ----------
    deep : number of `rows`, spread over them, at which priors and the policy's weights are computed as well, under
        one change each in turn: they cost ten times what the market does.
    """
    market = subject.market(subject.prices)
    priors = subject.priors(market)
    policy = subject.policy(market, priors)
    watched = arrays_of(market, subject.scaling)
    labelled = np.flatnonzero(market.regime != NO_LABEL)
    least = int(labelled[0]) + 1 if len(labelled) else 0  # the length of the history decides when labels begin
    deepened = {int(t): i for i, t in enumerate(rows[np.linspace(0, len(rows) - 1, min(deep, len(rows))).astype(int)])}
    for t in rows.tolist():
        names = [name for name in CHANGES if name != "cut" or t + 1 >= least]
        for name in names:
            cause = f"prices after {market.dates[t]} are {name}"
            other = subject.market(changed(subject.prices, t, name, rng, least))
            arrays = arrays_of(other, subject.scaling)
            for key, before in watched.items():
                # Whether the last row of a cut ends a month depends on the calendar, not on prices.
                stop = t if name == "cut" and key == "decision" else t + 1
                findings.compare(before, arrays[key].values, stop, market.dates, cause)
            if name in ("scaled", "shuffled"):
                check_ledger(findings, subject.accounting, market, other, t, cause)
            if t in deepened and name == names[deepened[t] % len(names)]:
                theirs = subject.priors(other)
                before = Watched("priors", priors, "prior", prior_room.EXPERTS, axis=1)
                findings.compare(before, theirs, t + 1, market.dates, cause)
                at = np.array(sorted({max(t - back, 0) for back in EARLIER}), dtype=np.int64)
                held, fallen = equal_weight_plan(market).targets[at], np.where(np.arange(len(at)) % 2, DRAWDOWN, 0.0)
                ours = Watched("policy's weights", policy.act(at, held, fallen), "policy's weight of", market.assets)
                moved = subject.policy(other, theirs).act(at, held, fallen)
                findings.compare(ours, moved, len(at), market.dates[at], cause)


def arrays_of(market: Market, scaling: FeatureScaling) -> dict[str, Watched]:
    """Every causal array of a market, and the features that the networks see, under a scaling that is given."""
    names, market_names = market.feature_names, market.market_feature_names
    scaled, scaled_market = scaling.apply(market)
    return {
        "close": Watched("prices", market.close, "price of", market.assets[:-1]),
        "features": Watched("features", market.features, "feature", names),
        "market_features": Watched("market features", market.market_features, "market feature", market_names),
        "regime": Watched("regime labels", market.regime, f"regime label ({', '.join(REGIMES)})"),
        "status": Watched("status", market.status, "status of", market.assets),
        "returns": Watched("returns", market.returns, "return of", market.assets),
        "benchmark": Watched("benchmark", market.benchmark, "benchmark"),
        "decision": Watched("decision days", market.decision, "decision day"),
        "scaled": Watched("scaled features", scaled, "scaled feature", names),
        "scaled_market": Watched("scaled features", scaled_market, "scaled market feature", market_names),
    }


def check_ledger(findings: Findings, accounting: Accounting, market: Market, other: Market, t: int, cause: str) -> None:
    """1/N through the ledger up to the decision of row t: its past must stay, and its last return must change.

    A ledger that paid the return of the decision's own day would pass every other check; here the return of the last
    decision must move with the prices of the next day.
    """
    window = Window(max(1, t + 1 - LEDGER_DAYS), t + 2)
    ours, theirs = (
        backtest(m, window, accounting, {ACCOUNTING: equal_weight_plan(m)})[ACCOUNTING] for m in (market, other)
    )
    days = len(window)
    dates = market.dates[window.start :]
    for name, stop in (("weights", days), ("turnover", days), ("net", days - 1)):
        noun = f"1/N's {'net return' if name == 'net' else name}"
        findings.compare(Watched(ACCOUNTING, getattr(ours, name), noun), getattr(theirs, name), stop, dates, cause)
    due = ours.weights[-1] @ (other.returns[t + 1] - market.returns[t + 1])
    if abs(due) > 1e-12 and ours.net[-1] == theirs.net[-1]:
        told = f"{cause} should move it and does not: it was known at the decision"
        findings.add(ACCOUNTING, Difference("return earned by the decision", str(market.dates[t]), told))
