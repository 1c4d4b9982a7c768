"""Trading one close later than deciding: what is left of a result is what does not need the very same close."""

import numpy as np

from finflow.evaluation.backtest import Rows, Strategy
from finflow.evaluation.result import Floats


def lagged(strategy: Strategy) -> Strategy:
    """The same trades, each executed at the decision day that follows; the entry of the window at once.

    What waits is the trade, not the weights: a policy that trades a little of the way each day would else undo every
    day's drift, and pay for that.
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
