"""Folder of a sweep for Hydra, as `conf/sweep.yaml` names it, and the leaderboard for the terminal."""

import math
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

import tables
from finflow.config import run_folder
from finflow.errors import FinFlowError

if TYPE_CHECKING:
    from finflow.sweeps.leaderboard import Leaderboard
    from finflow.sweeps.table import Row

SHOWN = 10


def swept(output_root: str, named: str | int) -> str:
    """The folder that `dir` names."""
    from finflow.stages.sweep import sweep_folder

    try:
        return str(sweep_folder(output_root, str(named)))
    except FinFlowError:  # the stage itself says, in its own words, what is wrong with `dir`
        return run_folder(output_root, "sweep", "unknown", 0)


def register() -> None:
    """Let Hydra know of it."""
    OmegaConf.register_new_resolver("finflow_swept", swept, replace=True, use_cache=True)


def show(board: "Leaderboard") -> None:
    """Print the best settings, what they are worth, and the jobs that are not finished."""
    keys = list(board.settings[0].values) if board.settings else []
    rows: list[list[str]] = []
    for rank, setting in enumerate(board.settings[:SHOWN], 1):
        score = "" if setting.score is None else f"{setting.score:.3f}"
        rows.append([str(rank), *setting.values.values(), score, _jobs(setting.rows)])
    tables.show_table("Best settings on validation days", ["", *keys, board.objective.replace("_", " "), "jobs"], rows)
    if board.luck is not None:
        found, over = board.luck.deflated, board.luck.overfitting.probability
        few = f"{_figure(found.deflated_effective, 3)} with {_figure(found.effective_trials, 1)} effective ones"
        print(
            f"Deflated Sharpe: {_figure(found.deflated, 3)} with {found.trials} trials, {few};"
            f" overfitting {_figure(over, 2)}"
        )
    if board.mixed_code:
        print(f"Warning: {board.mixed_code}")
    for row in board.rows:
        if row.state != "finished":
            print(f"Not finished: {row.job} {row.state}{': ' if row.reason else ''}{row.reason}")


def _figure(value: float, digits: int) -> str:
    """What one setting alone leaves undefined is no number."""
    return "undefined" if math.isnan(value) else f"{value:.{digits}f}"


def _jobs(rows: "tuple[Row, ...]") -> str:
    return rows[0].job if len(rows) == 1 else f"{sum(row.state == 'finished' for row in rows)} of {len(rows)} finished"
