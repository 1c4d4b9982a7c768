"""A test with one close of lag between decision and trade, to see how much of a result depends on trading at once."""

import numpy as np

from finflow.evaluation.backtest import Rows, Strategy
from finflow.evaluation.result import Floats


def lagged(strategy: Strategy) -> Strategy:
    """The same trades, each executed at the decision day that follows; the entry of the window at once.

    The trade is delayed, not the weights: otherwise a policy that trades a little each day would undo every day's
    drift, and pay for it.
    """
    waiting: list[Floats] = []

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        trade = strategy(rows, drifted, drawdown) - drifted
        if not waiting:
            waiting.append(np.zeros_like(trade))
            return drifted + trade
        waiting.append(trade)
        target = (drifted + waiting.pop(0)).clip(0.0)
        return target / target.sum(1, keepdims=True)

    return act
