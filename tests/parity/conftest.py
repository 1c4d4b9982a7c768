"""Parity with d3rlpy: `make parity` runs these in a venv of their own; elsewhere nothing here is collected."""

from importlib.util import find_spec

import pytest

from finflow.losses import quantile_huber_loss

collect_ignore_glob = [] if find_spec("d3rlpy") else ["*"]


@pytest.fixture(autouse=True)
def zone_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """d3rlpy's Huber zone is 1 whatever the atoms' spread; FinFlow's learners take a quarter of it."""
    for learner in ("iql", "td3bc", "bcell"):
        monkeypatch.setattr(
            f"finflow.agents.{learner}.quantile_loss", lambda atoms, y, _: quantile_huber_loss(atoms, y)
        )
