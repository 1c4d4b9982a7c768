"""What the best of several settings is worth: its deflated Sharpe ratio, and the probability of overfitting.

The deflated ratio compares the best of many trials with the expected best of as many useless ones: Bailey & Lopez de
Prado (2014), "The deflated Sharpe ratio", J. Portfolio Management 40(5); the probabilistic Sharpe ratio under it is
theirs of 2012. Everything is computed on active returns: the raw returns of long-only portfolios share the market's
ratio, which makes every one of them look significant.

Overfitting: does the best trial in one half of the days do well in the other half? Combinatorially symmetric
cross-validation: Bailey, Borwein, Lopez de Prado & Zhu (2017), "The probability of backtest overfitting",
J. Computational Finance 20(4).
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, norm, skew

from finflow.data.market import TRADING_YEAR
from finflow.evaluation.metrics import FLAT, known
from finflow.evaluation.result import Floats, Track
from finflow.evaluation.study import Selection

CHUNK = 2_000  # splits held in memory at once


def backtest_overfitting(active: Floats, blocks: int = 16) -> float:
    """Probability that a search over trials was overfitted: where luck alone decides, one half.

    It is the share of splits of the days into halves where the trial that is best in one half is not above the median
    in the other; nan where there are fewer than two trials, or two days a block, to compare. See `split_logits`.
    """
    logits = split_logits(active, blocks)
    return float(np.mean(logits <= 0)) if len(logits) else math.nan


def split_logits(active: Floats, blocks: int = 16) -> Floats:
    """[C] ln(w / (1 - w)) of the relative rank w = rank / (M + 1), 1 the worst, in the other half of a split's best.

    Raises ValueError if `blocks` is odd or below 2.

    Parameters
    ----------
    active : [R, M] daily net returns minus the benchmark's, of the trials of a search over the same days. Trials
        that equal the benchmark have nothing to rank and are left out. The oldest R mod `blocks` days are dropped,
        so that the halves are equally long.
    blocks : contiguous stretches that the days are cut into, even; every half of them is one split.
    """
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks={blocks}: the days are split into halves; give an even number of at least 2")
    days = len(active) - len(active) % blocks
    used = active[len(active) - days :]
    used = used[:, np.ptp(used, axis=0) >= FLAT] if days else used[:, :0]
    trials = used.shape[1]
    if trials < 2 or days < 2 * blocks:
        return np.empty(0)
    stretches = used.reshape(blocks, days // blocks, trials)
    sums, squares = stretches.sum(1), (stretches**2).sum(1)
    splits = halves(blocks)
    logits = np.empty(len(splits))
    for start in range(0, len(splits), CHUNK):
        part = splits[start : start + CHUNK]
        inside = half_ratios(part, sums, squares, days // 2)
        outside = half_ratios(1 - part, sums, squares, days // 2)
        picked = np.take_along_axis(outside, inside.argmax(1)[:, None], axis=1)
        rank = np.sum(outside < picked, axis=1) + (np.sum(outside == picked, axis=1) + 1) / 2
        logits[start : start + CHUNK] = np.log(rank / (trials + 1 - rank))
    return logits


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


@dataclass(frozen=True)
class DeflatedSharpe:
    """The chosen trial of a search, before and after its selection is accounted for; nan where undefined.

    Attributes
    ----------
    sharpe : annualised Sharpe ratio of its active returns (the active information ratio).
    probabilistic : probability that the true ratio is above 0, as if it had been the only trial.
    deflated : probability that it is above `hurdle`, the ratio expected of the best of `trials` useless trials.
    deflated_effective : the same with `effective_trials` and `hurdle_effective`.
    hurdle, hurdle_effective : annualised.
    trials : every trial started, crashed ones included.
    effective_trials : independent trials that the ones with returns amount to.
    """

    sharpe: float
    probabilistic: float
    deflated: float
    deflated_effective: float
    hurdle: float
    hurdle_effective: float
    trials: int
    effective_trials: float


def deflated_sharpe(active: Floats, chosen: int, trials: int, year: int = TRADING_YEAR) -> DeflatedSharpe:
    """Deflate the Sharpe ratio of the chosen trial of a search.

    Trials that equal the benchmark have no ratio: they count in `trials` alone. With several trials but fewer than two
    ratios their spread, and so the deflated figures, are nan.

    Raises ValueError if `trials` is below M.

    Parameters
    ----------
    active : [R, M] daily net returns minus the benchmark's of the trials that finished, over the same days.
    chosen : column of the trial that the search picked.
    trials : trials started, at least M.
    """
    days, finished = active.shape
    if trials < finished:
        raise ValueError(f"{trials} trials started, but {finished} have returns; count every job of the search")
    defined = np.ptp(active, axis=0) >= FLAT
    effective = effective_trials(active)
    if days < 3 or not defined[chosen]:
        nan = math.nan
        return DeflatedSharpe(nan, nan, nan, nan, nan, nan, trials, effective)
    ratios = active[:, defined].mean(0) / active[:, defined].std(0, ddof=1)
    spread = float(ratios.std(ddof=1)) if len(ratios) > 1 else math.nan if trials > 1 else 0.0
    hurdle, hurdle_effective = expected_best(trials, spread), expected_best(effective, spread)
    picked = active[:, chosen]
    ratio = float(picked.mean() / picked.std(ddof=1))
    shape = days, float(skew(picked)), float(kurtosis(picked, fisher=False))
    annual = math.sqrt(year)
    return DeflatedSharpe(
        sharpe=annual * ratio,
        probabilistic=probabilistic_sharpe(ratio, 0.0, *shape),
        deflated=probabilistic_sharpe(ratio, hurdle, *shape),
        deflated_effective=probabilistic_sharpe(ratio, hurdle_effective, *shape),
        hurdle=annual * hurdle,
        hurdle_effective=annual * hurdle_effective,
        trials=trials,
        effective_trials=effective,
    )


def probabilistic_sharpe(sharpe: float, hurdle: float, days: int, skewness: float, kurtosis: float) -> float:
    """Probability that the true Sharpe ratio is above `hurdle`, both per day.

    Phi((S - S0) sqrt(R - 1) / sqrt(1 - skewness S + (kurtosis - 1) S^2 / 4)), kurtosis 3 for a normal
    distribution; nan where that variance is not positive.
    """
    variance = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if math.isnan(variance) or variance <= 0:
        return math.nan
    return float(norm.cdf((sharpe - hurdle) * math.sqrt((days - 1) / variance)))


def expected_best(trials: float, spread: float) -> float:
    """Sharpe ratio expected of the best of independent trials whose true ratios are 0, `spread` apart (ddof 1).

    spread ((1 - g) z(1 - 1/N) + g z(1 - 1/(N e))), g the constant of Euler and Mascheroni. The approximation is
    made for many trials and negative below 1.3 of them, where the best of any number is not: 0 then.
    """
    if trials <= 1:
        return 0.0
    first, second = norm.ppf(1 - 1 / trials), norm.ppf(1 - 1 / (trials * math.e))
    factor = float((1 - np.euler_gamma) * first + np.euler_gamma * second)
    return spread * max(factor, 0.0)


def effective_trials(active: Floats) -> float:
    """Participation ratio of the eigenvalues of the trials' correlation matrix: (sum l)^2 / sum l^2, between 1 and M.

    Of `active` [R, M], columns without volatility are left out; nan where none is left. Noise in the estimated
    correlations holds M independent trials to M / (1 + (M - 1) / (R - 1)).
    """
    moving = active[:, np.ptp(active, axis=0) >= FLAT]
    if moving.shape[1] == 0 or len(moving) < 2:
        return math.nan
    correlation = np.atleast_2d(np.corrcoef(moving, rowvar=False))
    return moving.shape[1] ** 2 / float(np.sum(correlation**2))  # sum l = trace = M, sum l^2 = trace of the square


def selection_of(tracks: Mapping[str, Track], benchmark: Track) -> Selection:
    """Deflate the best of `tracks` (label -> track, the same days) by how many there are.

    On raw long-only returns the deflated ratio is useless, the market alone makes it 1: active returns are used.
    """
    labels = list(tracks)
    active = np.stack([track.net - benchmark.net for track in tracks.values()], axis=1)
    spread = active.std(0, ddof=1)
    ratios = np.where(spread > 0, active.mean(0) / np.where(spread > 0, spread, 1.0), -np.inf)
    best = int(np.argmax(ratios))
    found = deflated_sharpe(active, best, len(labels), benchmark.year)
    return Selection(
        best=labels[best],
        probabilistic=known(found.probabilistic),
        deflated=known(found.deflated),
        deflated_effective=known(found.deflated_effective),
        trials=found.trials,
        effective_trials=known(found.effective_trials),
        overfitting=known(backtest_overfitting(active)),
    )
