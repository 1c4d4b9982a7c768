"""How much of the best setting's lead is luck, with every job counted."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from finflow.cli import tables
from finflow.evaluation.selection_bias import deflated_sharpe
from finflow.sweeps.folder import SweepFolder
from finflow.sweeps.leaderboard import Leaderboard, Luck, leaderboard_of
from finflow.sweeps.table import Row

from .made import fail, finish, made_sweep

VALUES = [f"{v / 10:.1f}" for v in range(1, 13)]


def luck(board: Leaderboard) -> Luck:
    assert board.luck is not None
    return board.luck


def lead(row: Row) -> np.ndarray:
    assert row.returns is not None
    return row.returns.policy - row.returns.benchmark


def sweep(path: Path, skill: float = 0.0) -> SweepFolder:
    """Twelve settings ranked by what they really earned; the first may have skill."""
    folder = made_sweep(path, [f"algo.cql.alpha={','.join(VALUES)}"])
    jobs = folder.manifest().jobs
    for number, job in enumerate(jobs):
        finish(folder, job, 0.0, active=skill if number == 0 else 0.0)
    for row in leaderboard_of(folder, None).rows:
        path = folder.run_dir(row.job) / "summary.json"
        path.write_text(
            path.read_text().replace('"validation_sharpe": 0.0', f'"validation_sharpe": {lead(row).mean()}')
        )
    return folder


def test_the_best_of_noise_convinces_nobody_and_real_skill_does(tmp_path: Path) -> None:
    noise, skilled = (luck(leaderboard_of(sweep(tmp_path / name, s), None)) for name, s in (("n", 0.0), ("s", 6e-4)))
    assert noise.deflated.deflated < 0.2 < 0.8 < noise.deflated.probabilistic
    assert skilled.deflated.deflated > 0.95
    assert skilled.overfitting < 0.05
    assert noise.overfitting > 0.2


def test_crashed_jobs_are_trials(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    everything = luck(leaderboard_of(folder, None))
    board = leaderboard_of(folder, None)
    for setting in board.settings[-4:]:
        job = next(job for job in folder.manifest().jobs if job.name == setting.rows[0].job)
        (folder.run_dir(job.name) / "summary.json").unlink()
        fail(folder, job, "diverged", "x")
    left = leaderboard_of(folder, None)
    found = luck(left)
    assert (found.compared, found.deflated.trials, everything.deflated.trials) == (8, 12, 12)
    active = np.stack([lead(setting.rows[0]) for setting in left.settings[:8]], axis=1)
    assert found.deflated == deflated_sharpe(active, 0, 12)
    assert found.deflated.hurdle > deflated_sharpe(active, 0, 8).hurdle


def test_seeds_of_a_setting_are_one_portfolio(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path / "s", ["algo.cql.alpha=1,5", "seed=0,1,2"])
    for job in folder.manifest().jobs:
        finish(folder, job, float(job.values["algo.cql.alpha"]))
    board = leaderboard_of(folder, None)
    found = luck(board)
    assert (found.compared, found.deflated.trials) == (2, 6)
    best = np.mean([lead(row) for row in board.settings[0].rows], axis=0)
    assert_allclose(found.deflated.sharpe, np.sqrt(252) * best.mean() / best.std(ddof=1), rtol=1e-12)


def test_nothing_is_said_of_a_best_setting_that_is_not_finished(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path / "s", ["seed=0,1"])
    finish(folder, folder.manifest().jobs[0], 1.0)
    assert leaderboard_of(folder, None).luck is None


def test_what_seeds_of_one_setting_leave_undefined_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made_sweep(tmp_path, ["seed=0,1,2"])
    for job in folder.manifest().jobs:
        finish(folder, job, 0.5)
    tables.show_leaderboard(leaderboard_of(folder, None))
    said = capsys.readouterr().out
    assert "undefined with 3 trials" in said
    assert "overfitting undefined" in said
    assert "nan" not in said
