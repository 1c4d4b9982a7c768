"""The days of an episode: stretches of history, of one market regime, or a block bootstrap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finflow.allocators.signals import equal_weights
from finflow.data.calendar import SPREAD
from finflow.data.market import NO_LABEL, REGIMES, TRADABLE, Market, Window
from finflow.data.regimes import stretches
from finflow.errors import DataError

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
    decisions before the stretch ends, and ends with the stretch.

    Raises
    ------
    DataError
        If the window has no such stretch.
    """
    starts, ends = _starts(market, window, regime, horizon)
    picks = rng.integers(len(starts), size=count)
    return [np.arange(int(starts[p]), min(int(ends[p]), int(starts[p]) + days)) for p in picks]


def mean_length(market: Market, window: Window, regime: str, days: int) -> float:
    """Expected rows of an episode of `regime` ("all": of every day) that `training_paths` takes from history.

    Raises
    ------
    DataError
        If the window has no stretch of a month with the label.
    """
    if regime == "all":
        return float(min(days, len(window.decisions)))
    starts, ends = _starts(market, window, regime, 1)
    return float(np.minimum(ends - starts, days).mean())


def bootstrapped_in_regime(
    market: Market, window: Window, regime: str, days: int, count: int, rng: np.random.Generator
) -> list[Rows]:
    """`count` endless episodes of one regime: blocks of mean length 63 of days with its label, each [days].

    A block ends at the latest where its stretch does.

    Raises
    ------
    DataError
        If the window has no stretch of 21 days with the label.
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
