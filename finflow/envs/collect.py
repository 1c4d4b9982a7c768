"""Offline data: the days of episodes, the behaviours that trade through them, and what of it is stored.

Episodes are stretches of history, of one market regime, or a block bootstrap. Stored are holdings and decisions,
nothing else.

All behaviour policies are one formula, which relabels the actions of a batch too. A persona aims at a mixture of basis
portfolios (the priors and 1/N, or a random point of the simplex), blurs it by log-normal noise and moves a fraction
`rate` of the way from the weights it holds.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.allocators.priors import equal_weights
from finflow.data.features import stretches
from finflow.data.market import NO_LABEL, REGIMES, SPREAD, TRADABLE, Market, Window
from finflow.envs.simulator import Simulator, State, World
from finflow.errors import DataError
from finflow.io.files import flatten
from finflow.seeding import numpy_stream, torch_stream

Rows = NDArray[np.int64]

SHORTEST = 21
"""Trading days of an episode."""
MEAN_BLOCK = 63
"""Trading days of a bootstrap block."""


def labels(market: Market) -> NDArray[np.int8]:
    """Regime by day [T]; days before the first label count as normal."""
    return np.where(market.regime == NO_LABEL, REGIMES.index("normal"), market.regime).astype(np.int8)


def historical(window: Window, days: int, count: int, rng: np.random.Generator) -> list[Rows]:
    """`count` stretches of consecutive decision rows of `window`, starts uniform, each [days]."""
    return list(drawn(window, days, [rng] * count))


def drawn(window: Window, days: int, streams: Sequence[np.random.Generator]) -> Rows:
    """One stretch of consecutive decision rows of `window` from each of the streams, starts uniform, [streams, days].

    A window of fewer days gives all that it has.
    """
    decisions = window.decisions
    length = min(days, len(decisions))
    first = [rng.integers(decisions.start, decisions.stop - length + 1) for rng in streams]
    return np.array(first, dtype=np.int64)[:, None] + np.arange(length)


def bootstrapped(
    window: Window, days: int, count: int, rng: np.random.Generator, block: int = MEAN_BLOCK
) -> list[Rows]:
    """`count` stationary bootstraps (Politis & Romano 1994) of decision rows, `block` rows on average, each [days]."""
    first, last = window.decisions.start, window.decisions.stop
    size = last - first
    jump = rng.random((count, days)) < 1.0 / block
    jump[:, 0] = True
    fresh = rng.integers(size, size=(count, days))
    since = np.arange(days) - np.maximum.accumulate(np.where(jump, np.arange(days), 0), axis=1)
    origin = np.take_along_axis(fresh, np.arange(days) - since, axis=1)
    return list(first + (origin + since) % size)


def in_regime(
    market: Market,
    window: Window,
    regime: str,
    days: int,
    count: int,
    rng: np.random.Generator,
    horizon: int = 1,
) -> list[Rows]:
    """`count` episodes from stretches of `window` whose every day carries the causal label `regime`.

    An episode starts anywhere in a stretch of at least a month and `horizon` decisions, but at least `horizon`
    decisions before the stretch ends, and ends with the stretch. For its errors see `training_paths`.
    """
    starts, ends = _starts(market, window, regime, horizon)
    picks = rng.integers(len(starts), size=count)
    return [np.arange(int(starts[p]), min(int(ends[p]), int(starts[p]) + days)) for p in picks]


def mean_length(market: Market, window: Window, regime: str, days: int) -> float:
    """Expected rows of an episode of `regime` ("all": of every day) that `training_paths` takes from history."""
    if regime == "all":
        return float(min(days, len(window.decisions)))
    starts, ends = _starts(market, window, regime, 1)
    return float(np.minimum(ends - starts, days).mean())


def bootstrapped_in_regime(
    market: Market, window: Window, regime: str, days: int, count: int, rng: np.random.Generator
) -> list[Rows]:
    """`count` endless episodes of one regime: blocks of mean length 63 of days with its label, each [days].

    A block ends at the latest where its stretch does.
    """
    starts, ends = _starts(market, window, regime, 1)
    episodes, block = list[Rows](), market.calendar.rows(MEAN_BLOCK)
    for _ in range(count):
        blocks: list[Rows] = []
        while sum(len(block) for block in blocks) < days:
            pick = int(rng.integers(len(starts)))
            length = int(rng.geometric(1.0 / block))
            blocks.append(np.arange(int(starts[pick]), min(int(starts[pick]) + length, int(ends[pick]))))
        episodes.append(np.concatenate(blocks)[:days])
    return episodes


def training_paths(
    market: Market,
    window: Window,
    regime: str,
    days: int,
    count: int,
    resampled: int,
    rng: np.random.Generator,
    horizon: int = 1,
) -> list[Rows]:
    """`count` episodes of `window` and of `regime` ("all": of every day), `resampled` of them bootstrapped, shuffled.

    Raises
    ------
    DataError
        If the window has no stretch of a month, and of `horizon` decisions, with the label.
    """
    if regime == "all":
        block = market.calendar.rows(MEAN_BLOCK)
        rows = historical(window, days, count - resampled, rng) + bootstrapped(window, days, resampled, rng, block)
    else:
        rows = in_regime(market, window, regime, days, count - resampled, rng, horizon)
        rows += bootstrapped_in_regime(market, window, regime, days, resampled, rng)
    return [rows[k] for k in rng.permutation(count)]


def long_stretches(market: Market, window: Window, regime: str, horizon: int) -> tuple[int, list[tuple[int, int]]]:
    """The least rows of an episode, and the stretches of `window` with the label that have so many."""
    shortest = max(market.calendar.rows(SHORTEST, SPREAD), horizon)
    return shortest, [(a, b) for a, b in stretches(market.regime, window.decisions, regime) if b - a >= shortest]


def _starts(market: Market, window: Window, regime: str, horizon: int) -> tuple[Rows, Rows]:
    """Every day an episode of `regime` may start at, and where its stretch ends (exclusive)."""
    shortest, long = long_stretches(market, window, regime, horizon)
    if not long:
        raise DataError(
            f"market_regime={regime}: no stretch of {shortest} {market.calendar.unit}s with this label among the "
            f"{len(window)} that are trained on; choose another regime or a longer history"
        )
    starts = np.concatenate([np.arange(a, b - shortest + 1) for a, b in long])
    ends = np.concatenate([np.full(b - shortest + 1 - a, b) for a, b in long])
    return starts, ends


def padded(episodes: list[Rows]) -> NDArray[np.int64]:
    """Episodes side by side, [E, L], shorter ones padded with -1."""
    table = np.full((len(episodes), max(len(e) for e in episodes)), -1, dtype=np.int64)
    for slot, rows in enumerate(episodes):
        table[slot, : len(rows)] = rows
    return table


def starting_portfolios(
    market: Market, priors: NDArray[np.float64], episodes: list[Rows], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Weights [E, n] held before each episode's first decision: cash, 1/N or a prior portfolio, a third each."""
    first = np.array([rows[0] for rows in episodes])
    tradable = market.status[first] == TRADABLE
    cash = np.zeros(tradable.shape)
    cash[:, -1] = 1.0
    equal = equal_weights(tradable[:, :-1])
    prior = priors[first, rng.integers(priors.shape[1], size=len(first))]
    prior = prior / prior.sum(1, keepdims=True)  # they may come from float32
    kind = rng.integers(3, size=len(first))[:, None]
    return np.where(kind == 0, cash, np.where(kind == 1, equal, prior))


class Personas(NamedTuple):
    """B behaviours: mixture [B, K + 1] over priors and 1/N; blend [B] of a random portfolio; noise [B]; rate [B]."""

    mixture: Tensor
    blend: Tensor
    noise: Tensor
    rate: Tensor


def draw_personas(count: int, experts: int, generator: torch.Generator) -> Personas:
    """Draw behaviours: single priors, mixtures, 1/N, buy-and-hold (rate 0), noisy and random portfolios.

    Single priors have probability .45 together, 1/N .15, mixtures .2, random portfolios .2; half of all are noisy; a
    fifth hold (rate 0), a fifth trade all the way (rate 1), the rest 2 to 40 % of the way.
    """
    device = generator.device
    dims = experts + 1
    kind = torch.rand(count, generator=generator, device=device)
    expo = -torch.log(torch.rand(count, dims, generator=generator, device=device).clamp_min(1e-12))
    mixed = expo / expo.sum(-1, keepdim=True)  # Dirichlet(1)
    single = torch.randint(experts, (count,), generator=generator, device=device)
    places = torch.arange(dims, device=device)  # torch's one_hot reads the values, which waits for the device
    one_hot, equal = (single[:, None] == places).float(), (places == experts).float()
    mixture = torch.where((kind < 0.45)[:, None], one_hot, torch.where((kind < 0.60)[:, None], equal, mixed))
    blend = (kind >= 0.80).float()
    noise = torch.where(torch.rand(count, generator=generator, device=device) < 0.5, 0.0, 0.4)
    pace = torch.rand(count, generator=generator, device=device)
    partial = 0.02 + 0.38 * torch.rand(count, generator=generator, device=device)
    rate = torch.where(pace < 0.2, 0.0, torch.where(pace < 0.4, 1.0, partial))
    return Personas(mixture, blend, noise, rate)


def behave(personas: Personas, state: State, generator: torch.Generator) -> Tensor:
    """Target portfolios of `personas` in `state`, [B, n] float64 on the simplex of tradable assets.

    Names that cannot be traded get 0; the ledger keeps or closes them, and spreads the target over what is left.
    """
    tradable = state.tradable
    risky = tradable.float()
    risky[:, -1] = 0.0
    equal = risky / risky.sum(-1, keepdim=True).clamp_min(1.0)
    equal[:, -1] = (risky.sum(-1) <= 0).float()  # all cash where nothing else can be traded
    basis = torch.cat([state.priors, equal[:, None]], 1)
    aim = torch.einsum("bk,bkn->bn", personas.mixture, basis)
    device = generator.device
    expo = -torch.log(torch.rand(aim.shape, generator=generator, device=device).clamp_min(1e-12))
    scattered = expo.square() * tradable  # squared exponentials: more concentrated than Dirichlet(1)
    scattered = scattered / scattered.sum(-1, keepdim=True)
    aim = torch.lerp(aim, scattered, personas.blend[:, None])
    shock = torch.randn(aim.shape, generator=generator, device=device)
    blurred = (aim * torch.exp(personas.noise[:, None] * shock) * tradable).double()
    blurred = blurred / blurred.sum(-1, keepdim=True)
    held = state.drifted * tradable
    held[:, -1] += held.sum(-1) <= 0  # all of it in names that cannot be traded
    held = held / held.sum(-1, keepdim=True)
    rate = personas.rate[:, None].double()
    return (1.0 - rate) * held + rate * blurred


_ARRAYS = ("row", "next_row", "drifted", "executed", "drawdown", "previous")


@dataclass(frozen=True)
class Dataset:
    """Transitions of parallel episodes, ordered by day and, within a day, by episode.

    row, next_row [N] int32; drifted, executed [N, n] float32; drawdown [N] float32; previous [N] int64, the
    index of the transition before it, -1 at a start; facts: data and settings that shaped it.
    """

    row: NDArray[np.int32]
    next_row: NDArray[np.int32]
    drifted: NDArray[np.float32]
    executed: NDArray[np.float32]
    drawdown: NDArray[np.float32]
    previous: NDArray[np.int64]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.row)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def only(self, keep: NDArray[np.bool_]) -> "Dataset":
        """The transitions marked in `keep` [N]; links to those left out are cut."""
        renumbered = np.cumsum(keep) - 1
        linked = (self.previous >= 0) & keep[np.maximum(self.previous, 0)]
        previous = np.where(linked, renumbered[np.maximum(self.previous, 0)], -1)[keep]
        kept: dict[str, Any] = {name: array[keep] for name, array in self.arrays().items() if name != "previous"}
        return Dataset(**kept, previous=previous, facts=self.facts)


def collect(
    market: Market,
    world: World,
    train: Window,
    episodes: int,
    days: int,
    bootstrap_fraction: float,
    seed: int,
    facts: dict[str, Any],
) -> Dataset:
    """Run `episodes` behaviours for `days` days each on train rows, a share of them on bootstrapped history.

    An episode starts in cash, 1/N or a prior portfolio, a third each. The world must live on the CPU.
    """
    rng, generator = numpy_stream(seed, "collect/episodes"), torch_stream(seed, "collect/behaviours")
    resampled = round(episodes * bootstrap_fraction)
    rows = historical(train, days, episodes - resampled, rng) + bootstrapped(
        train, days, resampled, rng, market.calendar.rows(MEAN_BLOCK)
    )
    simulator = Simulator(market, world.accounting, world.reward)
    simulator.reset(padded(rows), starting_portfolios(market, world.priors.cpu().double().numpy(), rows, rng))
    personas = draw_personas(episodes, world.priors.shape[1], generator)
    lived: list[list[NDArray[Any]]] = []
    previous = np.full(episodes, -1, dtype=np.int64)
    stored = 0
    while simulator.active.any():
        active = np.flatnonzero(simulator.active)
        state = world.observe(simulator.row, simulator.drifted, simulator.drawdown)
        step = simulator.step(behave(personas, state, generator).numpy())
        parts = (step.row, step.next_row, step.before, step.executed, step.drawdown_before, previous)
        lived.append([part[active] for part in parts])
        previous[active] = stored + np.arange(len(active))
        stored += len(active)
    row, next_row, *floats, links = (np.concatenate(parts) for parts in zip(*lived, strict=True))
    drifted, executed, drawdown = (part.astype(np.float32) for part in floats)
    return Dataset(row.astype(np.int32), next_row.astype(np.int32), drifted, executed, drawdown, links, facts)


def dataset_bytes(dataset: Dataset) -> bytes:
    """An .npz without objects, the same bytes for the same data; its `facts` are one JSON string."""
    file = io.BytesIO()
    arrays: dict[str, Any] = dataset.arrays()
    np.savez(file, facts=np.array(json.dumps(dataset.facts, sort_keys=True)), **arrays)
    return file.getvalue()


def load_dataset(path: Path, wanted: dict[str, Any]) -> Dataset:
    """Read a dataset made by `collect.py` and check that it belongs to this market and fold: `wanted` are its facts.

    Raises
    ------
    DataError
        If the file is missing, damaged, holds objects, or was made from other data (the field is named).
    """
    key, remedy = f"offline.dataset={path}", "make one with experiments/collect.py"
    try:
        with np.load(path, allow_pickle=False) as file:
            facts, arrays = json.loads(str(file["facts"])), {name: file[name] for name in _ARRAYS}
    except FileNotFoundError:
        raise DataError(f"{key}: no such file; {remedy}") from None
    except Exception as error:  # a damaged archive raises many kinds of errors
        raise DataError(f"{key}: not a dataset of FinFlow, or damaged; {remedy}") from error
    there, here = flatten({name: facts.get(name) for name in wanted}), flatten(wanted)
    for leaf in {**here, **there}:
        if there.get(leaf) != here.get(leaf):
            theirs, ours = (f"{values.get(leaf)!r:.80}" for values in (there, here))
            raise DataError(f"{key}: made with {leaf}={theirs}, this run has {ours}; {remedy}")
    return Dataset(**arrays, facts=facts)
