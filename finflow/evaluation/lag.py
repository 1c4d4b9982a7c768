"""Trading one close later than deciding: what is left of a result is what does not need the very same close."""

from finflow.evaluation.backtest import Rows, Strategy
from finflow.evaluation.result import Floats


def lagged(strategy: Strategy) -> Strategy:
    """The same decisions, each executed at the decision day that follows; the first day's at once."""
    waiting: list[Floats] = []

    def act(rows: Rows, drifted: Floats, drawdown: Floats) -> Floats:
        waiting.append(strategy(rows, drifted, drawdown))
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return act
