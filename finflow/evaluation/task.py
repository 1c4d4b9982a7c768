"""Inputs of an evaluation: the candidate policy, the market with its rules, and the bootstrap of intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from finflow.data.market import Fold, Market, Window
from finflow.data.market_features import FeatureScaling
from finflow.envs.ledger import Accounting
from finflow.evaluation.backtest import Plan, Rows, Strategy, backtest
from finflow.evaluation.result import Floats, Track
from finflow.seeding import numpy_stream

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
    variants : the policy with one part taken away, for the reality checks; one named `POLICY` is the policy that the
        others are compared with.
    diagnostics : figures of its training, for the report.
    scalable : whether it decides on train rows too, by whose volatility it is scaled to that of 1/N.
    """

    policy: Policy | Track
    scaling: FeatureScaling
    experts: Sequence[str]
    variants: Mapping[str, Strategy] = field(default_factory=dict[str, Strategy])
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
