"""Picking the best of several runs: its own probability, deflated by how many were tried."""

from dataclasses import replace

import numpy as np
import pytest

from finflow.evaluation.result import Track
from finflow.evaluation.selection_bias import deflated_sharpe, selection_of


def track(net: np.ndarray) -> Track:
    dates = np.busday_offset(np.datetime64("2018-01-01"), np.arange(len(net)), roll="forward")
    zero = np.zeros(len(net))
    return Track("x", dates, np.zeros((len(net), 2)), np.zeros((len(net), 2)), zero, zero, net, net, 0)


def test_the_luckiest_of_many_is_deflated() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.0003, 0.01, 1000)
    runs = {f"run {k}": track(base + rng.normal(0, 0.003, 1000)) for k in range(30)}
    chosen = selection_of(runs, track(base))
    active = np.stack([t.net - base for t in runs.values()], 1)
    best = int(np.argmax(active.mean(0) / active.std(0, ddof=1)))
    assert chosen.best == f"run {best}"
    assert chosen.deflated == deflated_sharpe(active, best, 30).deflated
    assert chosen.probabilistic is not None
    assert chosen.deflated is not None
    assert chosen.probabilistic > 0.95  # the luckiest of thirty looks significant alone
    assert chosen.deflated < 0.8
    assert chosen.trials == 30


def test_one_that_is_able_stays_so() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0.0003, 0.01, 1000)
    runs = {f"run {k}": track(base + 0.0006 * (k == 4) + rng.normal(0, 0.003, 1000)) for k in range(10)}
    chosen = selection_of(runs, track(base))
    assert chosen.best == "run 4"
    assert chosen.deflated is not None
    assert chosen.deflated > 0.99
    assert chosen.overfitting == pytest.approx(0.0, abs=0.02)


def test_copies_of_the_benchmark_have_nothing_to_choose() -> None:
    base = track(np.random.default_rng(2).normal(0, 0.01, 300))
    chosen = selection_of({"a": base, "b": replace(base)}, base)
    assert chosen.deflated is None
