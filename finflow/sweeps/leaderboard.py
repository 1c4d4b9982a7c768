"""The contents of a sweep's table and page, read from its folder."""

from collections import Counter
from dataclasses import dataclass

from finflow.data.calendar import TRADING_YEAR, unit_of
from finflow.evaluation.metrics import OBJECTIVES
from finflow.sweeps.effects import Effect, Pair, effects_of, pairs_of
from finflow.sweeps.folder import Manifest, SweepFolder
from finflow.sweeps.luck import Luck, all_alike, luck_of
from finflow.sweeps.table import Row, Setting, read_rows, settings_of

CROSSED = 4
"""Number of parameters, by largest share, whose pairs are analysed."""


@dataclass(frozen=True)
class Leaderboard:
    """The current results of a sweep.

    Attributes
    ----------
    objective : name of the figure that settings are sorted by.
    rows : one a job, in their own order; settings : the best first.
    effects, pairs : of the swept parameters on the objective.
    luck : of having picked the first setting; None until it is finished.
    same : whether all settings are the same policy on validation days, so that none is the best.
    """

    manifest: Manifest
    objective: str
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    effects: tuple[Effect, ...]
    pairs: tuple[Pair, ...]
    luck: Luck | None
    same: bool

    @property
    def best(self) -> Row | None:
        """First finished job of the best setting; None where there is no best one."""
        rows = self.settings[0].rows if self.settings and not self.same else ()
        return next((row for row in rows if row.figures.get(self.objective) is not None), None)

    @property
    def finished(self) -> int:
        """Jobs that are."""
        return sum(row.state == "finished" for row in self.rows)

    @property
    def handed_over(self) -> bool:
        """Whether every job kept the hand-over, the policy of phase 1."""
        return all(row.figures.get("selected_episode") == 0 for row in self.rows)

    @property
    def unit(self) -> str:
        """What a row of the jobs' data is called: a day, a week or a month."""
        return unit_of(next((row.returns.year for row in self.rows if row.returns is not None), TRADING_YEAR))

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
    same = all_alike(settings)
    return Leaderboard(manifest, figure, rows, settings, effects, pairs, luck_of(settings, len(rows)), same)
