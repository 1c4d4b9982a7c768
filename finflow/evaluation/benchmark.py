"""The user's own benchmark as a track: returns alone, since its holdings and costs are unknown."""

import numpy as np

from finflow.data.market import Market, Window
from finflow.evaluation.result import Track

BENCHMARK = "benchmark"
"""Name of its track."""


def benchmark_track(market: Market, window: Window) -> Track:
    """`market.benchmark` over `window`, before cost; weights have no columns, so what needs them is undefined."""
    rows = slice(window.start, window.stop)
    net = market.benchmark[rows]
    nothing, unknown = np.zeros(len(net)), np.zeros((len(net), 0))
    return Track(
        BENCHMARK, market.dates[rows], unknown, unknown, nothing, nothing, net, net, closures=0,
        year=market.calendar.year,
    )  # fmt: skip
