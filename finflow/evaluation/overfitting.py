"""Probability of backtest overfitting: does the best trial in one half of the days do well in the other half?

Combinatorially symmetric cross-validation: Bailey, Borwein, Lopez de Prado & Zhu (2017), "The probability of backtest
overfitting", J. Computational Finance 20(4).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finflow.evaluation.metrics import FLAT
from finflow.evaluation.result import Floats

CHUNK = 2_000  # splits held in memory at once


@dataclass(frozen=True)
class Overfitting:
    """Result of selecting by Sharpe ratio over all splits of the days into two halves.

    Attributes
    ----------
    probability : share of splits where the trial that is best in one half is not above the median in the other.
        Luck alone gives one half.
    loss : share of splits where its Sharpe ratio in the other half is below 0.
    logits : [C] ln(w / (1 - w)) of its relative rank w = rank / (M + 1) in the other half, 1 the worst.
    trials : columns compared.
    Both shares are nan where there are fewer than two trials, or two days a block, to compare.
    """

    probability: float
    loss: float
    logits: Floats
    trials: int
    blocks: int


def backtest_overfitting(active: Floats, blocks: int = 16) -> Overfitting:
    """Estimate the probability that a search over trials was overfitted.

    Parameters
    ----------
    active : [R, M] daily net returns minus the benchmark's, of the trials of a search over the same days. Trials
        that equal the benchmark have nothing to rank and are left out. The oldest R mod `blocks` days are dropped,
        so that the halves are equally long.
    blocks : contiguous stretches that the days are cut into, even; every half of them is one split.

    Raises
    ------
    ValueError
        If `blocks` is odd or below 2.
    """
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks={blocks}: the days are split into halves; give an even number of at least 2")
    days = active.shape[0] - active.shape[0] % blocks
    used = active[active.shape[0] - days :]
    used = used[:, np.ptp(used, axis=0) >= FLAT] if days else used[:, :0]
    trials = used.shape[1]
    if trials < 2 or days < 2 * blocks:
        return Overfitting(math.nan, math.nan, np.empty(0), trials, blocks)
    stretches = used.reshape(blocks, days // blocks, trials)
    sums, squares = stretches.sum(1), (stretches**2).sum(1)
    splits = halves(blocks)
    logits, later = np.empty(len(splits)), np.empty(len(splits))
    for start in range(0, len(splits), CHUNK):
        part = splits[start : start + CHUNK]
        inside = half_ratios(part, sums, squares, days // 2)
        outside = half_ratios(1 - part, sums, squares, days // 2)
        picked = np.take_along_axis(outside, inside.argmax(1)[:, None], axis=1)
        rank = np.sum(outside < picked, axis=1) + (np.sum(outside == picked, axis=1) + 1) / 2
        logits[start : start + CHUNK] = np.log(rank / (trials + 1 - rank))
        later[start : start + CHUNK] = picked[:, 0]
    return Overfitting(float(np.mean(logits <= 0)), float(np.mean(later < 0)), logits, trials, blocks)


def halves(blocks: int) -> NDArray[np.int64]:
    """Every way to take half of the blocks: [C, blocks] of 0 and 1, C = binomial(blocks, blocks / 2)."""
    taken = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    splits = np.zeros((len(taken), blocks), dtype=np.int64)
    np.put_along_axis(splits, taken, 1, axis=1)
    return splits


def half_ratios(splits: NDArray[np.int64], sums: Floats, squares: Floats, days: int) -> Floats:
    """Daily Sharpe ratios [C, M] over the days of each split, from the blocks' [S, M] sums and sums of squares.

    With ddof 0, which changes no rank. -inf, below every other, where a trial was the benchmark all the while.
    """
    mean = splits @ sums / days
    second = splits @ squares / days
    variance = second - mean**2
    moving = variance > 1e-13 * second  # rounding of the difference is about 1e-16 of the second moment
    ratio = mean / np.sqrt(np.where(moving, variance, 1.0))
    return np.where(moving, ratio, -np.inf)
