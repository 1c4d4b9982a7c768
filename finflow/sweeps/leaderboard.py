"""The contents of a sweep's table and page, read from its folder: settings, effects of parameters, and selection bias.

Effects are shares of the variance of the finished jobs' scores about their mean. On a full grid the shares of the
single parameters and of their interactions add up to 1; where jobs are missing they need not. On validation days: which
settings are one policy, how far each is from the reference, and what the best is worth after its selection.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finflow.data.market import TRADING_YEAR, Calendar, unit_of
from finflow.evaluation.backtest import Bootstrap
from finflow.evaluation.metrics import FLAT, OBJECTIVES
from finflow.evaluation.result import Floats
from finflow.evaluation.selection_bias import DeflatedSharpe, backtest_overfitting, deflated_sharpe
from finflow.evaluation.sharpe_test import sharpe_difference
from finflow.evaluation.study import SAME, Middle
from finflow.sweeps.folder import Manifest, SweepFolder
from finflow.sweeps.table import Returns, Row, Setting, read_rows, scored, settings_of


@dataclass(frozen=True)
class Effect:
    """One parameter.

    scores : for each value those of its finished jobs; means : for each value, nan without a finished job.
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
    jobs = scored(rows, objective)
    found: list[Effect] = []
    for key, values in swept.items():
        if len(values) > 1:
            scores = _cells(jobs, {key: values})
            chance = _chance(sum(len(part) > 0 for part in scores) - 1, len(jobs))
            found.append(Effect(key, tuple(values), tuple(scores), _means(scores), _share(scores), chance))
    return tuple(sorted(found, key=lambda effect: -np.nan_to_num(effect.share, nan=-1.0)))


def pairs_of(rows: Sequence[Row], effects: Sequence[Effect], objective: str) -> tuple[Pair, ...]:
    """Every pair of the parameters in `effects`, in their order."""
    jobs = scored(rows, objective)
    found: list[Pair] = []
    for first, second in itertools.combinations(effects, 2):
        cells = _cells(jobs, {first.key: first.values, second.key: second.values})
        alone = sum(int(np.isfinite(effect.means).sum()) - 1 for effect in (first, second))
        chance = _chance(sum(len(cell) > 0 for cell in cells) - 1 - alone, len(jobs))
        share = _share(cells) - first.share - second.share
        means = _means(cells).reshape(len(first.values), len(second.values))
        found.append(Pair((first.key, second.key), (first.values, second.values), means, share, chance))
    return tuple(found)


def _cells(jobs: Sequence[tuple[Row, float]], swept: Mapping[str, Sequence[str]]) -> list[Floats]:
    """Scores of the jobs of each combination of values, the last key turning fastest."""
    return [
        np.array(
            [score for row, score in jobs if all(row.values[key] == at for key, at in zip(swept, cell, strict=True))]
        )
        for cell in itertools.product(*swept.values())
    ]


def _means(cells: Sequence[Floats]) -> Floats:
    return np.array([cell.mean() if len(cell) else np.nan for cell in cells])


def _chance(free: int, jobs: int) -> float:
    return free / (jobs - 1) if jobs > 1 else np.nan


def _share(groups: Sequence[Floats]) -> float:
    """Sum of squares between the groups' means over the total sum of squares."""
    scores = np.concatenate(groups) if groups else np.empty(0)
    if len(scores) < 2 or np.ptp(scores) < FLAT:
        return float("nan")
    middle = scores.mean()
    between = sum(len(group) * (group.mean() - middle) ** 2 for group in groups if len(group))
    return float(between / np.sum((scores - middle) ** 2))


@dataclass(frozen=True)
class Luck:
    """Statistics of the selection of the first of several settings.

    deflated : with every job of the sweep as a trial, those that crashed included.
    overfitting : probability that the best setting of half of the days is below the median in the other half.
    compared : settings that differ and whose active returns cover the same days as the best one's.
    """

    deflated: DeflatedSharpe
    overfitting: float
    compared: int


def luck_of(settings: Sequence[Setting], same: Sequence[int], trials: int) -> Luck | None:
    """Judge the choice of `settings[0]` on validation days, on active returns; None where it is not finished.

    same : of each setting, see `same_as`: those that are one policy count once.
    """
    tracks = [track_of(setting) for at, setting in enumerate(settings) if same[at] == at]
    best = tracks[0] if tracks else None
    if best is None:
        return None
    alike = [track for track in tracks if track is not None and np.array_equal(track.dates, best.dates)]
    active = np.stack([track.policy - track.benchmark for track in alike], axis=1)
    return Luck(deflated_sharpe(active, 0, trials, best.year), backtest_overfitting(active), active.shape[1])


def same_as(settings: Sequence[Setting]) -> tuple[int, ...]:
    """For each setting the place of the first one with the same returns on every day: the two are one policy."""
    tracks, found = [track_of(setting) for setting in settings], list[int]()
    for at, track in enumerate(tracks):
        found.append(next((other for other in range(at) if _alike(tracks[other], track)), at))
    return tuple(found)


def _alike(one: Returns | None, other: Returns | None) -> bool:
    if one is None or other is None or not np.array_equal(one.dates, other.dates):
        return False
    return np.allclose(one.policy - one.benchmark, other.policy - other.benchmark, rtol=0.0, atol=SAME)


def minus_reference(settings: Sequence[Setting], reference: Setting, bootstrap: Bootstrap) -> list[Middle | None]:
    """Sharpe ratio of each setting's returns minus that of the reference's on the same days, with its 95 % interval.

    None of the reference itself, where one of the two is not finished or they have other days, and where undefined.
    """
    first, found = track_of(reference), list[Middle | None]()
    for setting in settings:
        own = None if setting is reference else track_of(setting)
        if own is None or first is None or not np.array_equal(own.dates, first.dates):
            found.append(None)
            continue
        test = sharpe_difference(
            own.policy, first.policy, samples=bootstrap.samples, block_days=bootstrap.block_days,
            rng=bootstrap.rng("sweep/reference"), year=own.year,
        )  # fmt: skip
        found.append(None if math.isnan(test.difference) else (test.difference, test.low, test.high))
    return found


def track_of(setting: Setting) -> Returns | None:
    """Returns of a complete setting, the mean over its seeds, its folds one after the other.

    None where seeds of one fold do not cover the same days.
    """
    if not setting.complete:
        return None
    folds: dict[str, list[Row]] = {}
    for row in setting.rows:
        folds.setdefault(row.values.get("fold", ""), []).append(row)
    parts: list[Returns] = []
    for rows in folds.values():
        returns = [row.returns for row in rows if row.returns is not None]
        first = returns[0] if returns else None
        if first is None or len(returns) < len(rows) or any(not np.array_equal(r.dates, first.dates) for r in returns):
            return None
        policy, benchmark = (np.mean([getattr(r, name) for r in returns], axis=0) for name in ("policy", "benchmark"))
        parts.append(replace(first, policy=policy, benchmark=benchmark))
    parts.sort(key=lambda part: part.dates[0])
    dates, policy, benchmark = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("dates", "policy", "benchmark")
    )
    return Returns(dates, policy, benchmark, parts[0].year)


CROSSED = 4
"""Number of parameters, by largest share, whose pairs are analysed."""


@dataclass(frozen=True)
class Leaderboard:
    """The current results of a sweep.

    objective : name of the figure that settings are sorted by.
    rows : one per job, in their own order; settings : the best first.
    effects, pairs : of the swept parameters on the objective.
    luck : of having picked the first setting; None until it is finished.
    same_as : of each setting, the place of the first one that is the same policy on validation days.
    reference : setting of the first job; beyond : of each setting, its Sharpe ratio minus that of the reference.
    """

    manifest: Manifest
    objective: str
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    effects: tuple[Effect, ...]
    pairs: tuple[Pair, ...]
    luck: Luck | None
    same_as: tuple[int, ...]
    reference: Setting | None
    beyond: tuple[Middle | None, ...]

    @property
    def same(self) -> bool:
        """Whether all settings are one policy, so that none is the best."""
        return len(self.same_as) > 1 and not any(self.same_as)

    @property
    def ranks(self) -> tuple[int | None, ...]:
        """Of each setting; settings that are one policy share theirs, and have none where all are."""
        policies = sorted(set(self.same_as))
        return tuple(None if self.same else 1 + policies.index(first) for first in self.same_as)

    @property
    def best(self) -> Row | None:
        """First finished job of the best setting; None where there is no best one."""
        rows = self.settings[0].rows if self.settings and not self.same else ()
        return next((row for row in rows if row.figures.get(self.objective) is not None), None)

    @property
    def finished(self) -> int:
        """Number of finished jobs."""
        return sum(row.state == "finished" for row in self.rows)

    @property
    def handed_over(self) -> bool:
        """Whether every job kept the hand-over, the policy of phase 1."""
        return all(row.figures.get("selected_episode") == 0 for row in self.rows)

    @property
    def unit(self) -> str:
        """What a row of the jobs' data is called: a day, a week or a month."""
        return unit_of(_year(self.rows))

    @property
    def mixed_code(self) -> str:
        """The commits that made the jobs, in words; empty if there is one."""
        made = Counter(row.code for row in self.rows if row.code)
        if len(made) < 2:
            return ""
        told = ", ".join(f"{count} by {code}" for code, count in made.most_common())
        plus = "; +: with changes not committed" if any(code.endswith("+") for code in made) else ""
        return (
            f"The code changed while the sweep ran ({told}{plus}): a difference between jobs may be the code's doing."
        )


def leaderboard_of(folder: SweepFolder, objective: str | None) -> Leaderboard:
    """Read the folder; `objective` is sharpe, active_ir, or None for what the jobs selected their checkpoint by."""
    manifest = folder.manifest()
    figure = OBJECTIVES[objective or manifest.settings["evaluation"]["objective"]]
    rows = read_rows(folder, manifest)
    settings = settings_of(rows, figure)
    effects = effects_of(rows, manifest.swept, figure)
    pairs = pairs_of(rows, effects[:CROSSED], figure)
    same = same_as(settings)
    reference = next((setting for setting in settings if rows[0] in setting.rows), None)
    beyond = minus_reference(settings, reference, _bootstrap(manifest, rows)) if reference else []
    luck = luck_of(settings, same, len(rows))
    return Leaderboard(manifest, figure, rows, settings, effects, pairs, luck, same, reference, tuple(beyond))


def _bootstrap(manifest: Manifest, rows: Sequence[Row]) -> Bootstrap:
    asked, calendar = manifest.settings["evaluation"], Calendar(year=_year(rows))
    return Bootstrap(asked["bootstrap_samples"], calendar.rows(asked["block_days"]), manifest.settings["seed"])


def _year(rows: Sequence[Row]) -> int:
    return next((row.returns.year for row in rows if row.returns is not None), TRADING_YEAR)
