"""The batched simulator against a plain loop over Python floats."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from finflow.data.market import ABSENT, TRADABLE, Market
from finflow.envs.collect import padded
from finflow.envs.ledger import Accounting, RewardModel
from finflow.envs.simulator import Simulator


def by_hand(
    market: Market, desk: Accounting, reward: RewardModel, rows: Any, targets: Any, start: Any
) -> list[dict[str, Any]]:
    """One episode in plain Python floats, rule by rule."""
    n, lived = market.n, []
    weights, nav, peak = [float(w) for w in start], 1.0, 1.0
    for row, target in zip(rows, targets, strict=True):
        state = [int(s) for s in market.status[row]]
        held = [0.0 if state[i] == ABSENT else weights[i] for i in range(n - 1)]
        held.append(1.0 - sum(held))
        after = list(held)
        if market.decision[row]:
            room = 1.0 - sum(held[i] for i in range(n) if state[i] != TRADABLE)
            total = sum(float(target[i]) for i in range(n) if state[i] == TRADABLE)
            after = [float(target[i]) * room / total if state[i] == TRADABLE else held[i] for i in range(n)]
            names = [i for i in range(n - 1) if state[i] == TRADABLE]
            for i in names:
                if desk.max_weight is not None and after[i] > desk.max_weight:
                    after[-1] += after[i] - desk.max_weight
                    after[i] = desk.max_weight
            invested = sum(after[i] for i in names)
            if after[-1] < desk.min_cash and invested > 0:
                keep = max(0.0, 1.0 - (desk.min_cash - after[-1]) / invested)
                for i in names:
                    after[-1] += after[i] * (1.0 - keep)
                    after[i] *= keep
            moved = sum(abs(after[i] - held[i]) for i in range(n - 1))
            if moved < desk.no_trade_band:
                after = list(held)
            elif desk.max_turnover is not None and moved > desk.max_turnover:
                after = [held[i] + (after[i] - held[i]) * desk.max_turnover / moved for i in range(n)]
        turnover = sum(abs(after[i] - weights[i]) for i in range(n - 1))
        returns = market.returns[row + 1]
        gross = sum(after[i] * float(returns[i]) for i in range(n))
        net = (1.0 - desk.cost_rate * turnover) * (1.0 + gross) - 1.0
        old = np.log(peak / nav)
        nav *= 1.0 + net
        peak = max(peak, nav)
        score = (
            (active := reward.scale * np.log((1 + net) / (1 + market.benchmark[row + 1])))
            - reward.lambda_risk / 2 * active**2
            - reward.lambda_cvar * max(0.0, -np.log(1 + net) - reward.tail_threshold)
            - reward.lambda_turn * turnover
            - reward.lambda_dd * max(0.0, np.log(peak / nav) - old)
        )
        lived.append(
            {"executed": after, "before": weights, "turnover": turnover, "gross": gross, "net": net, "reward": score}
        )
        weights = [after[i] * (1.0 + float(returns[i])) / (1.0 + gross) for i in range(n)]
        lived[-1] |= {"drifted": weights, "nav": nav, "drawdown": np.log(peak / nav)}
    return lived


DESKS = [
    Accounting(0.0015),
    Accounting(0.0015, max_weight=0.2),
    Accounting(0.0015, min_cash=0.3),
    Accounting(0.0015, no_trade_band=0.9),
    Accounting(0.0015, max_turnover=0.15),
    Accounting(0.0015, max_weight=0.2, min_cash=0.3, no_trade_band=0.2, max_turnover=0.5),
]


@pytest.mark.parametrize("rules", DESKS)
def test_equals_a_plain_loop(
    rules: Accounting, lively: Market, reward: RewardModel, episodes: Any, targets: Any, starts: Any
) -> None:
    simulator = Simulator(lively, rules, reward)
    simulator.reset(padded(episodes), starts)
    lived = [(simulator.step(target), simulator.nav, simulator.drawdown) for target in targets]
    for slot, rows in enumerate(episodes):
        hand = by_hand(lively, rules, reward, rows, targets[:, slot], starts[slot])
        for (step, nav, drawdown), (row, day) in zip(lived, zip(rows, hand, strict=True), strict=True):
            found = {**step._asdict(), **step.booked._asdict(), "nav": nav, "drawdown": drawdown}
            assert found["row"][slot] == row
            for name, value in day.items():
                assert_allclose(found[name][slot], value, rtol=1e-9 if name == "reward" else 1e-12, atol=1e-12)
            assert_allclose(sum(term[slot] for term in step.components.values()), step.reward[slot], rtol=1e-13)
