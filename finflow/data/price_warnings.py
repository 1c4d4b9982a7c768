"""What a user should know about the prices: listings, delistings, stale stretches, jumps. One line a finding."""

import math

import numpy as np
from numpy.typing import NDArray

from finflow.data.prices import Prices
from finflow.data.status import equal_run
from finflow.schema.env import Env


def price_warnings(prices: Prices, env: Env) -> tuple[str, ...]:
    """Findings about `prices`, none of them an error, in the order of the tickers."""
    lines: list[str] = []
    jumps = _jumps(prices.close, env.split_jump)
    runs = equal_run(prices.close)
    for column, ticker in enumerate(prices.tickers):
        days = np.flatnonzero(np.isfinite(prices.close[:, column]))
        if not len(days):
            continue
        first, last = int(days[0]), int(days[-1])
        if first > 0:
            lines.append(f"{ticker}: no price before {prices.dates[first]}; untradable until then")
        if last < len(prices.dates) - 1:
            lines.append(
                f"{ticker}: last price on {prices.dates[last]}, blank to the end; treated as delisted "
                f"at a return of {env.delist_return:g}"
            )
        stretches = _stale_stretches(runs[:, column], env.stale_run)
        if stretches:
            lines.append(f"{ticker}: {_stale_text(prices, stretches, env.stale_run)}")
        for row in np.flatnonzero(jumps[:, column]):
            change = prices.close[row, column] / prices.close[row - 1, column] - 1
            lines.append(
                f"{ticker}: price moves by {100 * change:+.0f} % on {prices.dates[row]}, like an unadjusted split; "
                "check that prices are adjusted (kept as it is)"
            )
    return tuple(lines)


def _jumps(close: NDArray[np.float64], split_jump: float) -> NDArray[np.bool_]:
    """[T, d] moves with |log return| above -ln(1 - split_jump): .5 finds a fall by half and a doubling alike."""
    threshold = -math.log1p(-split_jump) if split_jump < 1 else math.inf
    found = np.zeros(close.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        found[1:] = np.abs(np.diff(np.log(close), axis=0)) > threshold
    return found


def _stale_stretches(run: NDArray[np.int64], stale_run: int) -> list[tuple[int, int]]:
    """(first row, last row) of each run of `stale_run` or more equal closes of one name."""
    ends = np.flatnonzero((run >= stale_run) & (np.append(run[1:], 0) <= run))
    return [(int(end - run[end] + 1), int(end)) for end in ends]


def _stale_text(prices: Prices, stretches: list[tuple[int, int]], stale_run: int) -> str:
    first, last = max(stretches, key=lambda s: s[1] - s[0])
    longest = f"{prices.dates[first]} to {prices.dates[last]} ({last - first + 1} days)"
    if len(stretches) == 1:
        return f"equal closes from {longest}; masked as untradable"
    begin, end = prices.dates[stretches[0][0]], prices.dates[stretches[-1][1]]
    return (
        f"{len(stretches)} stretches of {stale_run} or more equal closes between {begin} and {end}, the longest from "
        f"{longest}; masked as untradable"
    )
