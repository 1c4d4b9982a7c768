"""Offline data: what is stored is what was lived, on training days alone."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from finflow.data.market import Market, Window
from finflow.envs.collect import Dataset, collect
from finflow.envs.ledger import Accounting
from finflow.envs.simulator import World


@pytest.fixture(scope="module")
def world(lively: Market, make_world: Any) -> World:
    return make_world(lively, Accounting(0.0015, max_weight=0.6))


@pytest.fixture(scope="module")
def dataset(lively: Market, world: World, train: Window) -> Dataset:
    return collect(lively, world, train, 30, 60, 0.4, 1, {"who": "test"})


def chains(dataset: Dataset) -> list[list[int]]:
    """Transitions of each episode, in order, by following `previous`."""
    following = {int(p): i for i, p in enumerate(dataset.previous) if p >= 0}
    found = []
    for start in np.flatnonzero(dataset.previous < 0):
        chain = [int(start)]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        found.append(chain)
    return found


def test_every_transition_belongs_to_one_episode(dataset: Dataset) -> None:
    episodes = chains(dataset)
    assert [len(e) for e in episodes] == [60] * 30
    assert sorted(i for e in episodes for i in e) == list(range(len(dataset)))
    assert len(dataset) == 1800


def test_links_follow_the_days(dataset: Dataset) -> None:
    linked = dataset.previous >= 0
    assert_array_equal(dataset.next_row[dataset.previous[linked]], dataset.row[linked])
    jumping = [e for e in chains(dataset) if (np.diff(dataset.row[e]) != 1).any()]
    assert 5 <= len(jumping) <= 12  # twelve are resampled; one of 60 days may have no jump


def test_only_training_days_are_lived(dataset: Dataset, train: Window) -> None:
    assert dataset.row.min() >= train.start - 1
    assert dataset.row.max() <= train.stop - 2
    assert dataset.next_row.max() <= train.stop - 1


def test_stored_weights_are_portfolios(dataset: Dataset) -> None:
    for weights in (dataset.drifted, dataset.executed):
        assert weights.dtype == np.float32
        assert weights.min() >= 0
        assert_allclose(weights.sum(1), 1.0, rtol=0, atol=1e-6)


def test_what_is_stored_leads_to_what_is_stored_next(dataset: Dataset, world: World) -> None:
    before = np.maximum(dataset.previous, 0)
    linked = dataset.previous >= 0
    arrays = [torch.from_numpy(a[before]) for a in (dataset.row, dataset.drifted, dataset.drawdown)]
    state = world.observe(arrays[0].long(), arrays[1].double(), arrays[2].double())
    outcome = world.outcome(torch.from_numpy(dataset.executed[before]).double(), state)
    assert_allclose(outcome.drifted[linked], dataset.drifted[linked], rtol=0, atol=2e-7)
    assert_allclose(outcome.drawdown[linked], dataset.drawdown[linked], rtol=0, atol=2e-7)
    assert (dataset.drawdown[~linked] == 0).all()


def test_days_without_a_decision_only_hold(dataset: Dataset, lively: Market) -> None:
    held = ~lively.decision[dataset.row] & ~(lively.status[dataset.row] == 0).any(1)
    assert held.sum() > 100
    assert_allclose(dataset.executed[held], dataset.drifted[held], rtol=0, atol=1e-7)


def test_the_same_seed_gives_the_same_data(lively: Market, world: World, train: Window, dataset: Dataset) -> None:
    again, other = (collect(lively, world, train, 30, 60, 0.4, seed, {}) for seed in (1, 2))
    for name, array in dataset.arrays().items():
        assert_array_equal(array, again.arrays()[name])
    assert (other.row != dataset.row).any()
    assert (other.executed != dataset.executed).any()


@pytest.mark.parametrize(("fraction", "jumps"), [(0.0, False), (1.0, True)])
def test_the_share_of_resampled_history(
    fraction: float, jumps: bool, lively: Market, world: World, train: Window
) -> None:
    found = collect(lively, world, train, 6, 200, fraction, 1, {})
    jumping = [bool((np.diff(found.row[e]) != 1).any()) for e in chains(found)]
    assert jumping == [jumps] * 6


def test_only_cuts_links_to_what_is_left_out(dataset: Dataset) -> None:
    keep = np.random.default_rng(0).random(len(dataset)) < 0.7
    part = dataset.only(keep)
    old = np.flatnonzero(keep)
    assert len(part) == keep.sum()
    for new, index in enumerate(old):
        before = dataset.previous[index]
        if before >= 0 and keep[before]:
            assert old[part.previous[new]] == before
        else:
            assert part.previous[new] == -1
    for name in ("row", "next_row", "drifted", "executed", "drawdown"):
        assert_array_equal(part.arrays()[name], dataset.arrays()[name][keep])
    everything = dataset.only(np.ones(len(dataset), dtype=np.bool_))
    assert_array_equal(everything.previous, dataset.previous)
    assert len(dataset.only(np.zeros(len(dataset), dtype=np.bool_))) == 0
