"""What tests of several rooms share: the small network that they train, and a t-statistic."""

from typing import Any

from finflow.data.market import TRADING_YEAR
from finflow.evaluation.result import Track
from finflow.schema.sections import Network


def small_network(**changes: Any) -> Network:
    """One actor, six quantiles, no dropout, no noise, but for `changes`."""
    usual = {
        "kind": "portfolio", "actors": 1, "embed_dim": 8, "hidden_dim": 16, "n_quantiles": 6, "dropout": 0.0,
        "state_noise": 0.0, "layer_norm": True,
    }  # fmt: skip
    return Network(**(usual | changes))


def gross_active_t(track: Track, other: Track) -> float:
    """Gross active information ratio over its standard error, mean / (std / sqrt(R)) of [R] active days.

    The annualised ratio has the standard error sqrt(252 / R) where it is 0.
    """
    active = track.gross - other.gross
    ratio = float(active.mean() / active.std(ddof=1)) * TRADING_YEAR**0.5
    return ratio / (TRADING_YEAR / len(active)) ** 0.5
