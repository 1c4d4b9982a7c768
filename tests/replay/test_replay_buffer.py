"""The replay memory: indices and weights in, the day as it was lived out."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from finflow.data.market import Market, Window
from finflow.envs.collect import Dataset, collect
from finflow.envs.simulator import Simulator, World
from finflow.errors import DataError
from finflow.training.replay_buffer import ReplayBuffer, Transitions, join

CPU = torch.device("cpu")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(memory: ReplayBuffer, first: int, count: int, previous: list[int] | None = None) -> torch.Tensor:
    """Store transitions whose row says which they are."""
    row = torch.arange(first, first + count)
    weights = torch.zeros(count, 3)
    weights[:, 0] = row / 10_000
    weights[:, 2] = 1 - row / 10_000
    links = torch.full((count,), -1) if previous is None else torch.tensor(previous)
    return memory.add(row, row + 1, weights, weights, row / 10_000, links)


@pytest.fixture(scope="module")
def dataset(market: Market, world: World) -> Dataset:
    return collect(market, world, Window(11, 291), 12, 70, 0.5, 3, {})


def test_the_day_comes_back_as_the_simulator_lived_it(market: Market, world: World) -> None:
    simulator = Simulator(market, world.accounting, world.reward)
    simulator.reset(np.stack([np.arange(100 + i, 190 + i) for i in range(16)]))
    memory, rng = ReplayBuffer(2000, market.n, CPU), np.random.default_rng(5)
    lived, previous = [], torch.full((16,), -1)
    for _ in range(90):
        step = simulator.step(rng.dirichlet(np.full(market.n, 0.4), size=16))
        arrays = (step.row, step.next_row, step.before, step.executed, step.drawdown_before)
        previous = memory.add(*(torch.from_numpy(a) for a in arrays), previous)
        lived.append((step, simulator.drifted, simulator.drawdown))
    assert memory.size == 16 * 90
    logged = memory.sample(20_000, stream())
    index = torch.randint(memory.size, (20_000,), generator=stream())
    day, slot = (index // 16).numpy(), (index % 16).numpy()
    outcome = world.outcome(logged.executed, world.observe(logged.row, logged.drifted, logged.drawdown))

    def expected(values: list[np.ndarray]) -> np.ndarray:
        return np.array(values)[day, slot]

    assert (logged.row.numpy() == expected([s.row for s, _, _ in lived])).all()
    assert (logged.next_row.numpy() == expected([s.next_row for s, _, _ in lived])).all()
    assert_allclose(logged.drifted, expected([s.before for s, _, _ in lived]), rtol=0, atol=1.5e-7)
    assert_allclose(logged.executed, expected([s.executed for s, _, _ in lived]), rtol=0, atol=1.5e-7)
    assert_allclose(outcome.drifted, expected([d for _, d, _ in lived]), rtol=0, atol=2e-7)
    assert_allclose(outcome.drawdown, expected([d for _, _, d in lived]), rtol=0, atol=2e-7)
    assert_allclose(outcome.reward, expected([s.reward for s, _, _ in lived]), rtol=0, atol=2e-4)  # c is 200
    follows = day < 89
    assert (logged.has_next.numpy() == follows).all()
    nexts = np.array([s.executed for s, _, _ in lived])[np.minimum(day + 1, 89), slot]
    assert_allclose(logged.next_executed[follows], nexts[follows], rtol=0, atol=1.5e-7)


def test_samples_are_portfolios_in_double_precision(dataset: Dataset) -> None:
    logged = ReplayBuffer.of(dataset, CPU).sample(5000, stream())
    for weights in (logged.drifted, logged.executed, logged.next_executed):
        assert weights.dtype == torch.float64
        assert (weights >= 0).all()
        assert_allclose(weights.sum(-1), 1.0, rtol=0, atol=1e-14)


def test_a_memory_of_a_dataset_keeps_its_links(dataset: Dataset) -> None:
    memory = ReplayBuffer.of(dataset, CPU)
    assert memory.size == memory.capacity == len(dataset)
    following = {int(p): i for i, p in enumerate(dataset.previous) if p >= 0}
    assert memory.follows.tolist() == [following.get(i, -1) for i in range(len(dataset))]
    logged = memory.sample(3000, stream())
    index = torch.randint(len(dataset), (3000,), generator=stream())
    assert torch.equal(logged.row, torch.from_numpy(dataset.row).long()[index])


def test_a_dataset_with_nothing_left_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"^offline data: no transitions.*; "):
        ReplayBuffer.of(dataset.only(np.zeros(len(dataset), dtype=np.bool_)), CPU)


def test_the_oldest_are_overwritten() -> None:
    memory = ReplayBuffer(10, 3, CPU)
    assert numbered(memory, 0, 8).tolist() == list(range(8))
    assert memory.size == 8
    assert numbered(memory, 8, 5).tolist() == [8, 9, 0, 1, 2]
    assert memory.size == 10
    assert sorted(memory.row.tolist()) == list(range(3, 13))
    assert set(memory.sample(500, stream()).row.tolist()) == set(range(3, 13))


def test_only_what_is_stored_is_drawn() -> None:
    memory = ReplayBuffer(100, 3, CPU)
    numbered(memory, 1, 4)
    assert set(memory.sample(200, stream()).row.tolist()) == {1, 2, 3, 4}


def test_links_survive_many_rounds_of_the_ring() -> None:
    """Sixteen slots side by side, episodes of unequal length, some slots idle, a capacity that divides nothing."""
    capacity, rng = 237, np.random.default_rng(0)
    memory = ReplayBuffer(capacity, 3, CPU)
    left, previous = rng.integers(1, 40, 16), np.full(16, -1)
    stored: list[tuple[int, int]] = []  # (own number, number of the successor or -1)
    own, count = np.full(16, -1), 0
    for _ in range(150):
        active = np.flatnonzero(left > 0)
        index = numbered(memory, count, len(active), previous[active].tolist())
        for offset, slot in enumerate(active):
            if own[slot] >= 0:
                stored[own[slot]] = (own[slot], count + offset)
            stored.append((count + offset, -1))
            own[slot] = count + offset
        previous[active], count = index.numpy(), count + len(active)
        left -= 1
        for slot in np.flatnonzero(left <= 0):
            own[slot] = previous[slot] = -1
            if rng.random() < 0.5:
                left[slot] = rng.integers(1, 40)
    assert memory.size == capacity
    assert count > 5 * capacity
    for at in range(capacity):
        number = int(memory.row[at])
        successor = stored[number][1]
        follows = int(memory.follows[at])
        assert (int(memory.row[follows]) if follows >= 0 else -1) == successor
    logged = memory.sample(2000, stream())
    wanted = [stored[int(n)][1] for n in logged.row]
    assert logged.has_next.tolist() == [w >= 0 for w in wanted]
    assert_allclose(logged.next_executed[logged.has_next, 0], [w / 10_000 for w in wanted if w >= 0], rtol=0, atol=1e-6)


def test_the_same_generator_draws_the_same(dataset: Dataset) -> None:
    memory = ReplayBuffer.of(dataset, CPU)
    first, again, other = (memory.sample(50, stream(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.row, other.row)


def test_sampling_never_changes_what_is_stored(dataset: Dataset) -> None:
    memory = ReplayBuffer.of(dataset, CPU)
    kept = memory.executed.clone(), memory.drifted.clone()
    logged = memory.sample(50, stream())
    for weights in (logged.executed, logged.drifted, logged.next_executed):
        weights.zero_()
    assert torch.equal(memory.executed, kept[0])
    assert torch.equal(memory.drifted, kept[1])


def test_joining_two_samples(dataset: Dataset) -> None:
    memory = ReplayBuffer.of(dataset, CPU)
    first, second = memory.sample(3, stream(1)), memory.sample(5, stream(2))
    both = join(first, second)
    for name in Transitions._fields:
        assert torch.equal(getattr(both, name)[:3], getattr(first, name))
        assert torch.equal(getattr(both, name)[3:], getattr(second, name))
    assert len(join(first, memory.sample(0, stream())).row) == 3
