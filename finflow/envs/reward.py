"""The reward: net active log return, minus its risk, tail loss, turnover and new drawdown, each weighted and logged."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import Market, Window
from finflow.envs.ledger import at_least, namespace
from finflow.schema.sections import Reward

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

    Parameters
    ----------
    priors : [T, K, n] prior portfolios, decided at the close of t, the last the benchmark's own.
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
