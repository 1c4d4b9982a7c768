"""A test with one close of lag between decision and trade, to see how much of a result depends on trading at once."""

import numpy as np

from finflow.evaluation.backtest import Rows, Strategy
from finflow.evaluation.result import Floats


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
