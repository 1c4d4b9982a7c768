"""What an update is drawn from: the replay buffer, batches completed by the world model, and the policy's own paths.

The buffer stores indices into the market and weights, never observations, rewards or next states. A `Batcher` adds
relabelled actions, rewards and next states. `Walkers` are the policy's own portfolios on training paths, along which
value gradients are computed.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.agents.base import Batch, Paths, Stateful, gathered, world_size
from finflow.data.market import TRADABLE, Market
from finflow.envs.collect import Dataset, Rows, behave, draw_personas, padded, starting_portfolios
from finflow.envs.simulator import State, World, joined
from finflow.errors import ConfigError, DataError
from finflow.nn.actor import Decision
from finflow.seeding import numpy_stream


class Transitions(NamedTuple):
    """B recorded transitions.

    row, next_row [B] int64; drifted, executed [B, n] float64; drawdown [B] float64; next_executed [B, n] float64 and
    has_next [B] bool: the same episode's next action, where there is one.
    """

    row: Tensor
    next_row: Tensor
    drifted: Tensor
    executed: Tensor
    drawdown: Tensor
    next_executed: Tensor
    has_next: Tensor


_STORED = ("row", "next_row", "drifted", "executed", "drawdown", "follows")


class ReplayBuffer:
    """Ring buffer of transitions on one device.

    Parameters
    ----------
    capacity : transitions held; the oldest are overwritten.
    n : assets, cash included.
    """

    def __init__(self, capacity: int, n: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.row = torch.zeros(capacity, dtype=torch.int32, device=device)
        self.next_row = torch.zeros(capacity, dtype=torch.int32, device=device)
        self.drifted = torch.zeros(capacity, n, device=device)
        self.executed = torch.zeros(capacity, n, device=device)
        self.drawdown = torch.zeros(capacity, device=device)
        self.follows = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self.size = 0
        self.at = 0

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device) -> "ReplayBuffer":
        """A memory that holds all of an offline dataset; a `DataError` if that holds none."""
        if len(dataset) == 0:
            raise DataError(
                "offline data: no transitions are left of the days asked for; choose another market_regime,"
                " more budget.collect_episodes or a longer history"
            )
        memory = cls(len(dataset), dataset.drifted.shape[1], device)
        memory.add(*dataset.arrays().values())
        return memory

    def add(self, *transitions: Tensor | NDArray[Any]) -> Tensor:
        """Store b transitions, b <= capacity; returns the indices [b] under which they are stored.

        Parameters
        ----------
        transitions : row, next_row, drifted, executed and drawdown as in `Transitions`, and previous [b], the index of
            the one that each follows within its episode, -1 at a start.
        """
        given = (torch.as_tensor(part, device=self.device) for part in transitions)
        row, next_row, drifted, executed, drawdown, previous = given
        index = (self.at + torch.arange(len(row), device=self.device)) % self.capacity
        self.row[index], self.next_row[index] = row.to(torch.int32), next_row.to(torch.int32)
        self.drifted[index], self.executed[index] = drifted.float(), executed.float()
        self.drawdown[index] = drawdown.float()
        self.follows[index] = -1
        linked = previous >= 0
        # A successor is always younger than its predecessor, so it is overwritten later: links never dangle.
        self.follows[previous[linked]] = index[linked]
        self.at = int((self.at + len(row)) % self.capacity)
        self.size = min(self.capacity, self.size + len(row))
        return index

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Draw `count` transitions uniformly, with replacement."""
        index = torch.randint(self.size, (count,), generator=generator, device=self.device)
        follows = self.follows[index]
        return Transitions(
            self.row[index].long(),
            self.next_row[index].long(),
            self._simplex(self.drifted[index]),
            self._simplex(self.executed[index]),
            self.drawdown[index].double(),
            self._simplex(self.executed[follows.clamp_min(0)]),
            follows >= 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Every transition held, and where the next one goes."""
        return {**{name: getattr(self, name)[: self.size] for name in _STORED}, "size": self.size, "at": self.at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, of a memory of the same capacity."""
        self.size, self.at = state["size"], state["at"]
        for name in _STORED:
            getattr(self, name)[: self.size] = state[name]

    @staticmethod
    def _simplex(weights: Tensor) -> Tensor:
        """Weights in float64 whose cash takes up the rounding of their storage in float32."""
        exact = weights.double()
        exact[..., -1] = (1.0 - exact[..., :-1].sum(-1)).clamp_min(0.0)
        return exact / exact.sum(-1, keepdim=True)


def join(first: Transitions, second: Transitions) -> Transitions:
    """Two samples, one after the other."""
    return Transitions(*(torch.cat(pair) for pair in zip(first, second, strict=True)))


Draw = Callable[[int, int, np.random.Generator], list[Rows]]
"""(actor, count, rng) -> decision rows of so many episodes that this actor may learn from."""


class Walkers(Stateful):
    """W walkers for each of A actors. One whose episode has fewer than H days left begins another.

    A walker keeps its holdings from one update to the next, without gradient: gradients reach back H days.

    Parameters
    ----------
    draw : episodes, each of H decisions at least.
    horizon : H.
    stream : name of the random stream that episodes are drawn from.
    """

    STATE = ("_rows", "_length", "_at", "_drifted", "_drawdown", "_draws")

    def __init__(
        self,
        market: Market,
        world: World,
        draw: Draw,
        *,
        actors: int,
        walkers: int,
        horizon: int,
        seed: int,
        stream: str,
    ) -> None:
        if walkers % world_size():
            raise ConfigError(
                f"algo.walkers={walkers}: not a multiple of the {world_size()} processes; choose one that is"
            )
        self.market, self.world, self.draw = market, world, draw
        self.actors, self.horizon, self.seed, self.stream = actors, horizon, seed, stream
        self.priors = world.priors.cpu().double().numpy()
        count = actors * walkers
        self._rows = np.zeros((count, 1), dtype=np.int64)
        self._length, self._at = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        self._drifted = torch.zeros(count, market.n, dtype=torch.double, device=world.device)
        self._drawdown = torch.zeros(count, dtype=torch.double, device=world.device)
        self._open = (market.status == TRADABLE).all(1) & market.decision
        self._draws = 0

    def paths(self) -> Paths:
        """Positions of all walkers, and the rows of their next H days and of the state after them."""
        due = np.flatnonzero(self._length - self._at < self.horizon)
        if len(due):
            self._begin(due)
        ahead = self._at[:, None] + np.arange(self.horizon + 1)
        last = np.take_along_axis(self._rows, self._length[:, None] - 1, axis=1)
        rows = np.take_along_axis(self._rows, np.minimum(ahead, self._length[:, None] - 1), axis=1)
        rows = np.where(ahead < self._length[:, None], rows, last + 1)
        rows_there = torch.from_numpy(rows).to(self.world.device)
        return Paths(rows_there, self._drifted, self._drawdown, bool(self._open[rows[:, :-1]].all()))

    def batch(self) -> Batch:
        """Paths for a learner without a critic; the batch's transitions are placeholders."""
        paths = self.paths()
        state = self.world.observe(paths.rows[:, 0], paths.drifted, paths.drawdown)
        none = self._drawdown.float()
        return Batch(state, paths.drifted, none, none, state, paths.drifted, none.bool(), paths)

    def advance(self, reached: tuple[Tensor, Tensor] | None) -> None:
        """Continue from the end of the last update's paths: drifted weights and drawdowns of this process's walkers."""
        assert reached is not None
        # In the order that `own_rows` shared them out from.
        self._drifted, self._drawdown = (torch.stack(gathered(part), 1).flatten(0, 1) for part in reached)
        self._at = self._at + self.horizon

    def _begin(self, due: NDArray[np.int64]) -> None:
        rng = numpy_stream(self.seed, f"{self.stream}/{self._draws}")
        per_actor = len(self._at) // self.actors
        actors, counts = np.unique(due // per_actor, return_counts=True)
        pairs = zip(actors.tolist(), counts.tolist(), strict=True)
        episodes = [rows for actor, count in pairs for rows in self.draw(actor, count, rng)]
        table = padded(episodes)
        if (least := min(len(rows) for rows in episodes)) < self.horizon:
            raise DataError(f"algo.horizon={self.horizon}: training paths have {least} decisions; lower it")
        missing = table.shape[1] - self._rows.shape[1]
        if missing > 0:
            self._rows = np.pad(self._rows, ((0, 0), (0, missing)))
        self._rows[due, : table.shape[1]] = table
        self._length[due] = [len(rows) for rows in episodes]
        # The first episodes start at random positions, so that walkers do not all restart at the same update.
        spare = self._length[due] - self.horizon + 1
        self._at[due] = rng.integers(spare) if self._draws == 0 else 0
        starts = starting_portfolios(
            self.market, self.priors, [rows[at:] for rows, at in zip(episodes, self._at[due], strict=True)], rng
        )
        index = torch.from_numpy(due).to(self.world.device)
        self._drifted, self._drawdown = self._drifted.clone(), self._drawdown.clone()
        self._drifted[index] = torch.from_numpy(starts).to(self.world.device)
        self._drawdown[index] = 0.0
        self._draws += 1


WIDE_NOISE = 0.6  # standard deviation, in log weight, of the wide noise around the policy's mean


class Batcher:
    """Completes recorded transitions to a batch.

    Parameters
    ----------
    relabel_fraction : share of a batch whose action is replaced and booked anew.
    state_noise : standard deviation of noise on the features of assets and market (augmentation); 0 is none.
    gamma : discount.
    act : phase 2's stochastic policy, State -> Decision; None where relabelling draws behaviours alone.
    """

    def __init__(
        self,
        world: World,
        relabel_fraction: float,
        state_noise: float,
        gamma: float,
        generator: torch.Generator,
        act: Callable[[State], Decision] | None = None,
    ) -> None:
        self.world, self.relabel_fraction, self.state_noise = world, relabel_fraction, state_noise
        self.gamma, self.generator, self.act = gamma, generator, act

    def complete(self, logged: Transitions) -> Batch:
        """Relabel a share of the rows, drawn at random, then book every row by the ledger."""
        world, count = self.world, len(logged.row)
        state = world.observe(logged.row, logged.drifted, logged.drawdown)
        chosen = torch.randperm(count, generator=self.generator, device=world.device)
        chosen = chosen[: round(self.relabel_fraction * count)]
        asked = state.at(chosen)
        proposal = self._behave(asked) if self.act is None else self._propose(asked)
        executed = logged.executed.index_copy(0, chosen, world.execute(proposal, asked))
        outcome = world.outcome(executed, state)
        next_state = world.observe(logged.next_row, outcome.drifted, outcome.drawdown)
        next_weights, has_next = logged.next_executed, logged.has_next.index_fill(0, chosen, self.act is None)
        if self.act is None:  # in phase 2 the next action is the policy's own
            following = next_state.at(chosen)
            fresh = world.execute(self._behave(following), following)
            next_weights = next_weights.index_copy(0, chosen, fresh)
        return Batch(
            self._blur(state),
            executed.float(),
            outcome.reward.float(),
            torch.where(outcome.ruined, 0.0, self.gamma).float(),
            self._blur(next_state),
            next_weights.float(),
            has_next,
        )

    def _behave(self, state: State) -> Tensor:
        personas = draw_personas(len(state.row), state.priors.shape[1], self.generator)
        return behave(personas, state, self.generator)

    def _propose(self, state: State) -> Tensor:
        """A third each: behaviours, samples of the policy, wide log-normal noise around its sample."""
        assert self.act is not None
        count = len(state.row)
        third, two_thirds = round(count / 3), round(2 * count / 3)
        behaved = self._behave(state.at(slice(0, third)))
        if count == 0:  # nothing to relabel: several actors cannot decide in zero states
            return behaved
        sampled = self.act(state.at(slice(third, count))).mean
        wide = sampled[two_thirds - third :]
        shock = torch.randn(wide.shape, generator=self.generator, device=self.world.device)
        wide = wide * torch.exp(WIDE_NOISE * shock)
        return torch.cat([behaved, sampled[: two_thirds - third].double(), wide.double()])

    def _blur(self, state: State) -> State:
        if self.state_noise == 0:
            return state
        return joined(self.world.look(state.row, self.state_noise, self.generator), state.drifted, state.drawdown)
