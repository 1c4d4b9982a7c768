"""Walkers live on training paths, H days an update, and go on from what they hold."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from finflow.envs.collect import Rows
from finflow.errors import ConfigError
from finflow.stages.prepare import Prepared
from finflow.training import replay_buffer as room
from finflow.training.replay_buffer import Draw, Walkers

ACTORS, EACH, HORIZON = 2, 3, 4


@pytest.fixture
def make(prepared: Prepared) -> Callable[..., Walkers]:
    def build(draw: Draw | None = None, horizon: int = HORIZON) -> Walkers:
        def stretch(_actor: int, count: int, rng: np.random.Generator) -> list[Rows]:
            return [np.arange(first, first + 10) for first in rng.integers(300, 600, count)]

        return Walkers(
            prepared.market, prepared.world, draw or stretch, actors=ACTORS, walkers=EACH, horizon=horizon, seed=0,
            stream="walkers",
        )  # fmt: skip

    return build


def _drift(walkers: Walkers) -> tuple[torch.Tensor, torch.Tensor]:
    """What holding the benchmark's portfolio would reach: any portfolio does."""
    count = ACTORS * EACH
    held = torch.full((count, walkers.market.n), 1 / walkers.market.n, dtype=torch.double)
    return held, torch.full((count,), 0.1, dtype=torch.double)


def test_a_walker_goes_on_where_it_stood(make: Callable[..., Walkers]) -> None:
    walkers = make()
    first = walkers.paths()
    assert first.rows.shape == (ACTORS * EACH, HORIZON + 1)
    assert (first.rows.diff(dim=1) == 1).all()
    walkers.advance(_drift(walkers))
    second = walkers.paths()
    went_on = second.rows[:, 0] == first.rows[:, -1]
    assert went_on.any()
    assert (second.drifted[went_on] == 1 / walkers.market.n).all()
    assert (second.drawdown[went_on] == 0.1).all()
    begun = ~went_on
    assert (second.drawdown[begun] == 0).all()
    torch.testing.assert_close(second.drifted.sum(1), torch.ones(ACTORS * EACH, dtype=torch.double))


def test_an_episode_is_left_when_fewer_days_than_the_horizon_remain(make: Callable[..., Walkers]) -> None:
    """Ten days hold two horizons of four; the state after the last decision is that of the row that follows."""
    seen: list[int] = []

    def draw(_actor: int, count: int, _rng: np.random.Generator) -> list[Rows]:
        seen.append(count)
        return [np.arange(400, 408) for _ in range(count)]

    walkers = make(draw)
    for _ in range(4):
        rows = walkers.paths().rows
        assert int(rows.max()) <= 408
        walkers.advance(_drift(walkers))
    assert sum(seen) > 2 * ACTORS * EACH
    assert (rows[:, -1] - rows[:, 0] == HORIZON).all()


def test_a_path_may_jump_between_its_days(make: Callable[..., Walkers]) -> None:
    """A bootstrap's next decision is another day's; after the last one comes the day that follows it."""
    jump = np.array([310, 311, 500, 501])
    rows = make(lambda _actor, count, _rng: [jump] * count).paths().rows
    assert rows.tolist() == [[310, 311, 500, 501, 502]] * (ACTORS * EACH)


def test_each_actor_has_episodes_of_its_own(make: Callable[..., Walkers]) -> None:
    def draw(actor: int, count: int, _rng: np.random.Generator) -> list[Rows]:
        return [np.arange(300 + 200 * actor, 310 + 200 * actor)] * count

    rows = make(draw).paths().rows
    assert (rows[:EACH] < 320).all()
    assert (rows[EACH:] >= 500).all()


def test_restored_walkers_go_on_to_the_bit(make: Callable[..., Walkers]) -> None:
    first = make()
    for _ in range(3):
        first.paths()
        first.advance(_drift(first))
    second = make()
    second.paths()
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        ours, theirs = first.paths(), second.paths()
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
        for each in (first, second):
            each.advance(_drift(each))


def test_walkers_start_at_different_days_of_their_episodes(make: Callable[..., Walkers]) -> None:
    """Else all would begin anew at the same update."""
    walkers = make(lambda _actor, count, _rng: [np.arange(300, 400)] * count)
    assert len(set(walkers.paths().rows[:, 0].tolist())) > 2


def test_walkers_that_processes_cannot_share_are_refused(
    make: Callable[..., Walkers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"algo\.walkers=3: not a multiple of the 2 processes"):
        make()
