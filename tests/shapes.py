"""The small network that tests of several rooms train."""

from typing import Any

from finflow.schema.algo import Network


def small_network(**changes: Any) -> Network:
    """One actor, six quantiles, no dropout, no noise, but for `changes`."""
    usual = {
        "kind": "portfolio", "actors": 1, "embed_dim": 8, "hidden_dim": 16, "n_quantiles": 6, "dropout": 0.0,
        "state_noise": 0.0, "layer_norm": True,
    }  # fmt: skip
    return Network(**(usual | changes))
