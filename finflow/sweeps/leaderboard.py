"""The contents of a sweep's table and page, read from its folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finflow.data.market import TRADING_YEAR, Calendar, unit_of
from finflow.evaluation.backtest import Bootstrap
from finflow.evaluation.metrics import OBJECTIVES
from finflow.evaluation.study import Middle
from finflow.sweeps.effects import Effect, Pair, effects_of, pairs_of
from finflow.sweeps.folder import Manifest, SweepFolder
from finflow.sweeps.luck import Luck, luck_of, minus_reference, same_as
from finflow.sweeps.table import Row, Setting, read_rows, settings_of

CROSSED = 4
"""Number of parameters, by largest share, whose pairs are analysed."""


@dataclass(frozen=True)
class Leaderboard:
    """The current results of a sweep.

    Attributes
    ----------
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
    """Read the folder; `objective` is sharpe, active_ir, or None for what the jobs selected their checkpoint by.

    Raises
    ------
    ConfigError
        If it is no sweep's folder, or its jobs do not compare.
    StorageError
        If a file in it is damaged.
    """
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
    """Rows a year of the jobs' data."""
    return next((row.returns.year for row in rows if row.returns is not None), TRADING_YEAR)
