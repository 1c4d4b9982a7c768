"""Exact decomposition of a trade: the part of each expert, and the effect of the desk's rules."""

from typing import NamedTuple

import numpy as np

from finflow.evaluation.result import Floats
from finflow.explanations.decision_trace import DecisionTrace


class TradeParts(NamedTuple):
    """experts [R, K, n] and execution [R, n]: their sum is the trade, executed minus drifted weights [R, n].

    experts : rate g_k (e_ki - w-_i), since w_bar = (1 - rate) w- + rate sum_k g_k e_k and the shares sum to 1.
    execution : what closings, frozen names, caps, the band and the turnover cap added; float32 leaves about 1e-7.
    """

    experts: Floats
    execution: Floats

    @property
    def trade(self) -> Floats:
        """Executed minus drifted weights, [R, n]."""
        return self.experts.sum(1) + self.execution


def trade_parts(scene: DecisionTrace) -> TradeParts:
    """Parts of every trade of a scene."""
    track = scene.track
    experts = expert_parts(scene.gate, scene.experts, scene.rate, track.drifted)
    return TradeParts(experts, (track.weights - track.drifted) - experts.sum(1))


def expert_parts(gate: Floats, experts: Floats, rate: Floats, drifted: Floats) -> Floats:
    """rate g_k (e_ki - w-_i): gate [R, K], experts [R, K, n], rate [R], drifted [R, n] -> [R, K, n]."""
    share = gate / gate.sum(1, keepdims=True)  # float32 shares sum to 1 within 1e-7 only
    return np.asarray(rate[:, None, None] * share[..., None] * (experts - drifted[:, None]))
