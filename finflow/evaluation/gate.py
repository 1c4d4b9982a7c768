"""Test whether the gate follows the market regime: their mutual information against its distribution by chance.

Regimes last for months and a gate moves slowly, so even independent series agree for long stretches. Shuffling single
days would destroy that and mistake it for dependence. The null here is circular: the
regimes keep their order and lengths and are shifted against the gate by every number of days.
"""

import numpy as np
from numpy.typing import NDArray

from finflow.evaluation.result import Floats, GateInformation

QUANTILE = 0.95


def gate_information(gate: Floats, regime: NDArray[np.int8]) -> float:
    """I(Z; regime) in nats, Z an expert drawn with the gate's shares: H(mean gate) - sum_r p_r H(mean gate | r).

    0 where the gate is the same in every regime, however it moves within them; at most the regimes' own entropy.

    Parameters
    ----------
    gate : [R, K] shares, rows summing to 1.
    regime : [R] labels.
    """
    return float(_information(gate, _indicators(regime)))


def follows_regime(gate: Floats, regime: NDArray[np.int8]) -> GateInformation | None:
    """The same beside its null of all R circular shifts; None where there is one expert or one regime alone.

    The shift by nothing is one of them: so the p-value is at least 1 / R, and exact where the series are stationary.
    """
    marks = _indicators(regime)
    if gate.shape[1] < 2 or len(marks) < 2:
        return None
    null = np.array([_information(gate, np.roll(marks, days, axis=1)) for days in range(len(gate))])
    # Shifts that are equal but for rounding count as reached.
    p_value = float(np.mean(null >= null[0] - 1e-12))
    return GateInformation(float(null[0]), float(np.quantile(null, QUANTILE)), p_value)


def _indicators(regime: NDArray[np.int8]) -> Floats:
    """[labels present, R], 1 where a day carries the label."""
    return (np.unique(regime)[:, None] == regime).astype(np.float64)


def _information(gate: Floats, marks: Floats) -> np.float64:
    days = marks.sum(1)
    within = marks @ gate / days[:, None]
    return _entropy(gate.mean(0)) - (days / days.sum()) @ _entropy(within)


def _entropy(shares: Floats) -> Floats:
    """Over the last axis, in nats; 0 ln 0 is 0."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1)
