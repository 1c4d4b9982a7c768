"""A plugin with one of each kind, as a user would write it; `conftest.py` copies it into a folder of their own."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from finflow.agents.iql import IQL
from finflow.data.features import Array, History
from finflow.data.prices import Prices
from finflow.nn.actor import Actor
from finflow.nn.networks import Critic, ObservationSpec
from finflow.nn.networks import _mlp as plain  # pyright: ignore[reportPrivateUsage]
from finflow.plugins import Plugin
from finflow.schema.fields import Fraction
from finflow.schema.sections import Env, IQLConfig, Network
from finflow.tracking.sink import Sink


class PushedConfig(IQLConfig):
    """IQL that reports a key of its own."""

    name: Literal["pushed"]  # pyright: ignore[reportIncompatibleVariableOverride]
    """The algorithm."""
    push: Fraction
    """A key that IQL does not have."""


class Pushed(IQL):
    def update(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        metrics = super().update(*args, **kwargs)
        return metrics | {"push": metrics["q_loss"].new_tensor(self.config.push)}  # type: ignore[attr-defined]


class Note(Sink):
    def __init__(self, run_dir: Path, step: int | None) -> None:
        self.file = run_dir / "note.txt"

    def log(self, step_name: str, step: int, row: Any) -> None:
        with self.file.open("a") as file:
            file.write(f"{step_name} {step} {row.get('push')}\n")


def walk(env: Env, cache: Path | None) -> Prices:
    days = pd.bdate_range("2014-11-17", periods=1500).to_numpy().astype("datetime64[D]")
    close = 50 * np.exp(np.random.default_rng(5).normal(0.0004, 0.01, (1500, 4)).cumsum(0))
    return Prices(days, ("A", "B", "C", "D"), close)


def jump(history: History) -> Array:
    return np.abs(history.log_return) / history.volatility_63


def wide(spec: ObservationSpec, network: Network) -> tuple[Actor, Critic]:
    return plain(spec, network.model_copy(update={"hidden_dim": 2 * network.hidden_dim}))


plugin = Plugin(
    algorithms={"pushed": (PushedConfig, Pushed)},
    networks={"wide": wide},
    features={"jump": jump},
    sources={"walk": walk},
    trackers={"note": Note},
)
