"""Effects of swept parameters on the objective: marginal effects, shares of variance, interactions of pairs.

Shares are of the variance of the finished jobs' scores about their mean. On a full grid the shares of the single
parameters and of their interactions add up to 1; where jobs are missing they need not.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finflow.evaluation.metrics import FLAT
from finflow.evaluation.result import Floats
from finflow.sweeps.table import Row


@dataclass(frozen=True)
class Effect:
    """One parameter.

    Attributes
    ----------
    key, values : as typed.
    scores : for each value those of its finished jobs.
    means : for each value, over everything else; nan without a finished job.
    share : of the variance, that the values' means explain; nan where all scores are equal.
    chance : what scores without any effect would give it on average, (values - 1) / (jobs - 1).
    """

    key: str
    values: tuple[str, ...]
    scores: tuple[Floats, ...]
    means: Floats
    share: float
    chance: float


@dataclass(frozen=True)
class Pair:
    """Two parameters: mean score [A, B] by their values, nan in an empty cell.

    share : of the variance, that the cells explain beyond the two parameters alone; chance : as `Effect`'s.
    """

    keys: tuple[str, str]
    values: tuple[tuple[str, ...], tuple[str, ...]]
    means: Floats
    share: float
    chance: float


def effects_of(rows: Sequence[Row], swept: Mapping[str, Sequence[str]], objective: str) -> tuple[Effect, ...]:
    """Every parameter with several values, the one with the largest share first."""
    scored = _scored(rows, objective)
    found: list[Effect] = []
    for key, values in swept.items():
        if len(values) < 2:
            continue
        scores = tuple(np.array([score for row, score in scored if row.values[key] == value]) for value in values)
        used = sum(len(part) > 0 for part in scores)
        means = np.array([part.mean() if len(part) else np.nan for part in scores])
        chance = (used - 1) / (len(scored) - 1) if len(scored) > 1 else np.nan
        found.append(Effect(key, tuple(values), scores, means, _share(scores), chance))
    return tuple(sorted(found, key=lambda effect: -np.nan_to_num(effect.share, nan=-1.0)))


def pairs_of(rows: Sequence[Row], effects: Sequence[Effect], objective: str) -> tuple[Pair, ...]:
    """Every pair of the parameters in `effects`, in their order."""
    scored = _scored(rows, objective)
    found: list[Pair] = []
    for first, second in itertools.combinations(effects, 2):
        cells = [
            np.array([score for row, score in scored if row.values[first.key] == a and row.values[second.key] == b])
            for a in first.values
            for b in second.values
        ]
        means = np.array([cell.mean() if len(cell) else np.nan for cell in cells])
        used = sum(len(cell) > 0 for cell in cells)
        beyond = used - 1 - sum(int(np.isfinite(effect.means).sum()) - 1 for effect in (first, second))
        chance = beyond / (len(scored) - 1) if len(scored) > 1 else np.nan
        share = _share(cells) - first.share - second.share
        shape = len(first.values), len(second.values)
        found.append(Pair((first.key, second.key), (first.values, second.values), means.reshape(shape), share, chance))
    return tuple(found)


def _scored(rows: Sequence[Row], objective: str) -> list[tuple[Row, float]]:
    return [(row, score) for row, score in ((row, row.figures.get(objective)) for row in rows) if score is not None]


def _share(groups: Sequence[Floats]) -> float:
    """Sum of squares between the groups' means over the total sum of squares."""
    scores = np.concatenate(groups) if groups else np.empty(0)
    if len(scores) < 2 or np.ptp(scores) < FLAT:
        return float("nan")
    middle = scores.mean()
    between = sum(len(group) * (group.mean() - middle) ** 2 for group in groups if len(group))
    return float(between / np.sum((scores - middle) ** 2))
