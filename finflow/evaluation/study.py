"""Results of several runs on one page: seeds averaged, folds stitched, or settings side by side."""

from dataclasses import dataclass
from typing import Literal

from finflow.evaluation.result import Comparison, Metrics, Verdict

Middle = tuple[float, float, float]
"""An interquartile mean over seeds and the ends of its 95 % bootstrap interval, nan with a single seed."""


@dataclass(frozen=True)
class Setting:
    """A compared setting: its seeds' portfolios averaged to one strategy, beside that of the reference setting.

    Attributes
    ----------
    seeds : of its runs.
    middle : of its seeds' own Sharpe ratios; None where one is undefined.
    against : the averaged strategy against the reference's over the same days; None of the reference itself.
    paired : of the differences of Sharpe ratios, each seed minus the reference's run of that seed; None of the
        reference itself, and where the two have other seeds.
    same_as : the first setting with the same returns on every day; empty where there is none before it.
    handed_over : runs that kept the hand-over, phase 1's policy.
    abstaining : runs that hold the benchmark's portfolio, their confidence being 0.
    """

    seeds: tuple[int, ...]
    middle: Middle | None
    against: Comparison | None
    paired: Middle | None
    same_as: str
    handed_over: int
    abstaining: int


@dataclass(frozen=True)
class Member:
    """One part of a study, a seed, a fold or a setting: its label, metrics and verdict.

    setting : of "comparison" alone.
    """

    label: str
    metrics: Metrics
    verdict: Verdict
    setting: Setting | None = None


@dataclass(frozen=True)
class Selection:
    """Selection bias in the best of several compared settings, on their active returns against 1/N.

    Attributes
    ----------
    best : label of the setting with the highest active Sharpe ratio.
    probabilistic : probability that its active Sharpe ratio is above 0, taken alone.
    deflated, deflated_effective : the same against the best that so many trials reach by luck (Bailey & Lopez de
        Prado 2014), counting settings, and counting effective settings.
    trials, effective_trials : settings that differ, and what they amount to after their correlation.
    overfitting : probability that the best of one half of the days is below the median of the other (CSCV).
    """

    best: str
    probabilistic: float | None
    deflated: float | None
    deflated_effective: float | None
    trials: int
    effective_trials: float | None
    overfitting: float | None


@dataclass(frozen=True)
class Study:
    """Several runs on one page.

    Attributes
    ----------
    kind : "seeds" (their portfolios averaged into one strategy), "folds" (their test windows stitched into one
        walk-forward track) or "comparison" (settings side by side, the first is the page's policy and the reference).
    members : the parts, each judged on its own.
    middle : of seeds: interquartile mean of their Sharpe ratios with its 95 % bootstrap interval.
    underpowered : fewer than 10 seeds.
    selection : of "comparison": what its best setting is worth; None where all are the same.
    seeds : of "folds" with several seeds, which the members and the stitched track average in each fold: each seed's
        own stitched track.
    """

    kind: Literal["seeds", "folds", "comparison"]
    members: tuple[Member, ...]
    middle: Middle | None
    underpowered: bool
    selection: Selection | None = None
    seeds: tuple[Member, ...] = ()
