"""What a training loop needs beside an agent and its data: where figures go, validation, and where it may stop."""

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finflow.tracking.sink import Tracker
from finflow.training.monitor import Monitor
from finflow.training.rules import Figures


class Session(Protocol):
    """What the loop of either phase needs."""

    @property
    def tracker(self) -> Tracker:
        """Takes a row of figures per epoch or episode."""
        ...

    @property
    def monitor(self) -> Monitor:
        """Reads losses and figures, and may intervene."""
        ...

    def evaluate(self, done: int, /) -> Figures:
        """Validation figures of the agent as it stands, after `done` epochs or episodes."""
        ...

    def pause(self) -> None:
        """Called after every step: the run can be left here and resumed to the bit."""
        ...


class OnlineSession(Session, Protocol):
    """What the loop of phase 2 needs besides."""

    def summarise(self, net: NDArray[np.float64], turnover: NDArray[np.float64]) -> Figures:
        """Return, Sharpe ratio, CVaR and turnover of an episode, from its days [L]."""
        ...

    def before_cql(self) -> None:
        """Called once, when the critic's own warm-up ends."""
        ...

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Counts the seconds of a named phase."""
        ...
