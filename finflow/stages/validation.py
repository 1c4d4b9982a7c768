"""Validation during training: the greedy policy's backtest on validation rows, and the choice of a checkpoint."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import Stateful
from finflow.agents.greedy import GreedyPolicy, describe
from finflow.data.market import TRADING_YEAR
from finflow.evaluation.backtest import Task, equal_weight_plan, equal_weight_track
from finflow.evaluation.metrics import (
    OBJECTIVES,
    cvar,
    decision_regimes,
    gate_information,
    paired_gain,
    sharpe_ratio,
    validation_score,
)
from finflow.evaluation.result import Track
from finflow.nn.networks import Networks


class Validator:
    """Scores a policy on the fold's validation rows; never sees the test rows.

    Attributes
    ----------
    gate : [N, K] shares that the gate gave the experts on validation days, at the last validation.
    latest : track of the policy when it was last scored.
    """

    latest: Track

    def __init__(self, policy: GreedyPolicy, task: Task) -> None:
        self.policy, self.task = policy, task
        market, fold = task.market, task.fold
        self.benchmark = equal_weight_track(market, fold.validation, task.accounting)
        rows = np.asarray(fold.validation.decisions, dtype=np.int64)
        self._regime = decision_regimes(market, fold.validation)
        self.gate = np.empty((0, 0))
        self._states = (rows, equal_weight_plan(market).targets[rows], np.zeros(len(rows)))

    def __call__(self) -> dict[str, float | None]:
        """Figures of the policy as it stands, and how alive gate and experts are; each `validation_...`."""
        self.latest = self.track()
        score = self.diagnose() | validation_score(self.latest, self.benchmark)
        return {f"validation_{name}": value for name, value in score.items()}

    def series(self, objective: str) -> NDArray[np.float64]:
        """Daily series of the latest track whose ratio mean / std `objective` is, [R]."""
        return self.latest.net - self.benchmark.net if objective == "active_ir" else self.latest.net

    def track(self) -> Track:
        """The policy as it stands over the validation rows."""
        return self.task.track(self.task.fold.validation, self.policy.act)

    def diagnose(self) -> dict[str, float | None]:
        """`agents.greedy.describe` over the validation rows, holding 1/N, and what gate and regime share, in nats."""
        decision = self.policy.decide(*self._states)
        self.gate = decision.gate.double().cpu().numpy()
        shared = gate_information(self.gate, self._regime)
        return {**describe(decision), "gate_regime_information": shared}


class Selection(Stateful):
    """Keeps the latest weights whose ratio is a standard error above the first's, paired by day; else the first.

    The best of many validations would be the luckiest one. Every candidate is therefore compared with the first, the
    weights at the hand-over, which stay unless a candidate is clearly better.

    Attributes
    ----------
    at : step of the weights kept, None before the first score; `score` and `weights` are their own.
    scores : every score considered, in order.

    Parameters
    ----------
    networks : whose weights are kept; None keeps the scores alone.
    """

    STATE = ("at", "score", "scores", "weights", "first")

    def __init__(self, networks: Networks | None, objective: str) -> None:
        self.networks, self.objective = networks, OBJECTIVES[objective]
        self.at: int | None = None
        self.score: Mapping[str, float | None] = {}
        self.scores: list[dict[str, float | None]] = []
        self.weights: dict[str, Tensor] = {}
        self.first: NDArray[np.float64] | None = None

    def consider(self, step: int, score: Mapping[str, float | None], series: NDArray[np.float64]) -> bool:
        """Keep the weights if they are the first, or clearly better than the first; returns whether they were kept.

        Parameters
        ----------
        series : [R] of the validation days, see `Validator.series`.
        """
        self.scores.append(dict(score))
        if self.first is None:
            self.first = series
        elif paired_gain(series, self.first) < 1.0:
            return False
        self.at, self.score = step, dict(score)
        if self.networks is not None:
            self.weights = {name: tensor.detach().clone() for name, tensor in self.networks.state_dict().items()}
        return True


def summarise_episode(
    net: NDArray[np.float64], turnover: NDArray[np.float64], year: int = TRADING_YEAR
) -> dict[str, float | None]:
    """Return, Sharpe ratio, CVaR95 and turnover of one episode from its net returns and turnover [L]."""
    return {
        "days": float(len(net)),
        "return": float(np.prod(1.0 + net) - 1.0),
        "sharpe": sharpe_ratio(net, year),
        "cvar": cvar(net, 0.05),
        "turnover": float(turnover.sum()),
    }
