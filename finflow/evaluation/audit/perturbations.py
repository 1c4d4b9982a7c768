"""Other prices: with a changed future, the same up to a row."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finflow.data.prices import Prices

Floats = NDArray[np.float64]
Change = Callable[[Floats, np.random.Generator], Floats]

HORIZON = 252
"""Days kept after a changed row; code that looks farther ahead finds no rows there, and differs as well."""
JITTER = 0.05
"""Daily log noise of a scaled future: it changes every return but never looks like a split."""
NOISE = 0.02
"""Daily volatility of prices that are noise."""

CHANGES: dict[str, Change | None] = {
    "scaled": lambda later, rng: later * np.exp(JITTER * rng.standard_normal(later.shape)),
    "shuffled": lambda later, rng: later[rng.permutation(len(later))],
    "blanked": lambda later, _: np.full_like(later, np.nan),
    "cut": None,
}
"""Name, as in "prices after 2017-05-03 are scaled" -> rows after t [L, d] to other rows; None leaves none."""


def changed(prices: Prices, t: int, name: str, rng: np.random.Generator, least: int) -> Prices:
    """Prices that are the same up to row `t` and changed after it, volumes and signals too.

    Parameters
    ----------
    name : of `CHANGES`.
    least : rows that stay in any case but a cut, however short the horizon.
    """
    change = CHANGES[name]
    stop = t + 1 if change is None else min(len(prices.dates), max(t + 1 + HORIZON, least))

    def after(values: Floats) -> Floats:
        kept = values[:stop].copy()
        if change is not None:
            kept[t + 1 :] = change(kept[t + 1 :], rng)
        return kept

    return _with(prices, stop, after)


def noise_after(prices: Prices, t: int, rng: np.random.Generator) -> Prices:
    """Prices that are random walks of their own after row `t`, begun at 100; volumes and signals noise too."""

    def walks(values: Floats) -> Floats:
        steps = NOISE * rng.standard_normal(values[t + 1 :].shape)
        return np.concatenate([values[: t + 1], 100.0 * np.exp(np.cumsum(steps, axis=0))])

    return _with(prices, len(prices.dates), walks)


def _with(prices: Prices, stop: int, after: Callable[[Floats], Floats]) -> Prices:
    return replace(
        prices,
        dates=prices.dates[:stop],
        close=after(prices.close),
        volume=None if prices.volume is None else after(prices.volume),
        signals={name: after(values) for name, values in prices.signals.items()},
    )
