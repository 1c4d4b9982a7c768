"""The table of a sweep: order, reasons, the same after an interruption, and what must not be in one table."""

import csv
import html
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from finflow.cli import tables
from finflow.config.compose import load
from finflow.errors import ConfigError, StorageError
from finflow.stages.sweep import collect_sweep
from finflow.sweeps.folder import Pin, SweepFolder
from finflow.sweeps.leaderboard import leaderboard_of
from finflow.sweeps.plan import plan_of
from finflow.sweeps.table import read_rows

from .made import fail, finish, made_sweep

GRID = ("algo.cql.alpha=1,5,10", "seed=0,1")


def collected(folder: SweepFolder, *overrides: str) -> list[dict[str, str]]:
    config = load("sweep", [f"dir='{folder.path}'", *overrides])
    with collect_sweep(config).table.open(newline="") as file:
        return list(csv.DictReader(file))


def filled(path: Path, scores: Sequence[float | None]) -> SweepFolder:
    """A sweep over `GRID` whose jobs without a score diverged."""
    folder = made_sweep(path, GRID)
    for job, score in zip(folder.manifest().jobs, scores, strict=True):
        if score is None:
            fail(folder, job, "diverged", "critic_loss is not finite at update 7")
        else:
            finish(folder, job, score)
    return folder


def test_settings_are_ranked_by_their_mean_and_incomplete_ones_come_last(tmp_path: Path) -> None:
    table = collected(filled(tmp_path / "s", [0.9, None, 0.1, 0.3, 0.4, 0.2]))
    assert [(r["rank"], r["algo.cql.alpha"], r["seed"], r["state"], r["validation_sharpe"]) for r in table] == [
        ("1", "10", "0", "finished", "0.4"),
        ("1", "10", "1", "finished", "0.2"),
        ("2", "5", "0", "finished", "0.1"),
        ("2", "5", "1", "finished", "0.3"),
        ("3", "1", "0", "finished", "0.9"),
        ("3", "1", "1", "diverged", ""),
    ]
    assert [row["reason"] for row in table if row["reason"]] == ["critic_loss is not finite at update 7"]


def test_the_table_follows_the_objective_that_is_asked_for(tmp_path: Path) -> None:
    folder = filled(tmp_path / "s", [0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert collected(folder)[0]["algo.cql.alpha"] == "10"
    assert collected(folder, "sweep.objective=active_ir")[0]["algo.cql.alpha"] == "1"
    own = made_sweep(tmp_path / "own", [*GRID, "evaluation.objective=active_ir"])
    assert leaderboard_of(own, None).objective == "validation_active_information_ratio"


def test_an_interrupted_sweep_that_was_finished_later_gives_the_same_files(tmp_path: Path) -> None:
    scores = [0.9, 0.5, 0.1, 0.3, 0.4, 0.2]
    whole, broken = filled(tmp_path / "a" / "s", scores), made_sweep(tmp_path / "b" / "s", GRID)
    collected(broken)
    jobs = broken.manifest().jobs
    fail(broken, jobs[3], "killed", "its process is gone")
    finish(broken, jobs[5], scores[5])
    provisional = collected(broken)
    assert {row["state"] for row in provisional} == {"waiting", "killed", "finished"}
    assert "5 of 6 jobs are not finished (4 waiting, 1 killed)" in (broken.path / "sweep.html").read_text()
    (broken.run_dir(jobs[3].name)).rmdir()
    for job, score in list(zip(jobs, scores, strict=True))[4::-1]:
        finish(broken, job, score)
    collected(whole)
    collected(broken)
    for name in ("sweep.csv", "sweep.html", "best.yaml"):
        one, other = ((folder.path / name).read_text() for folder in (whole, broken))
        assert one.replace(str(tmp_path / "a"), "") == other.replace(str(tmp_path / "b"), "")


def test_without_a_finished_job_there_is_a_table_but_no_best_one(tmp_path: Path) -> None:
    folder = filled(tmp_path / "s", [None] * 6)
    result = collect_sweep(load("sweep", [f"dir='{folder.path}'"]))
    assert result.best is None
    assert not (folder.path / "best.yaml").exists()
    assert "No job finished" in result.page.read_text()
    assert result.next_command == "python experiments/finetune.py -m algo.cql.alpha=1,5,10 seed=0,1"


@pytest.mark.parametrize(
    ("swept", "following", "jobs"),
    [
        (["seed=0,1"], "init.weights={folder} -m seed=0,1", 2),
        (["fold=2008,2018", "seed=3,4"], "init.weights={folder} -m fold=2008,2018 seed=3,4", 4),
        (["algo.gamma=0.9,0.95", "seed=0,1"], "-m init.weights={best}", 2),
        (["algo.gamma=0.9,0.95"], "init.weights={best}", 1),
    ],
)
def test_fine_tuning_follows_from_every_pretraining(
    swept: list[str], following: str, jobs: int, tmp_path: Path
) -> None:
    folder = made_sweep(tmp_path / "s", swept, stage="pretrain")
    for job in folder.manifest().jobs:
        finish(folder, job, float(job.values.get("algo.gamma", 1)))
    result = collect_sweep(load("sweep", [f"dir='{folder.path}'"]))
    best = ",".join(str(folder.run_dir(row.job)) for row in result.leaderboard.settings[0].rows)
    command = f"python experiments/finetune.py {following.format(folder=folder.path, best=best)}"
    assert result.next_command == command
    assert len(plan_of("finetune", [word for word in shlex.split(command)[2:] if word != "-m"]).jobs) == jobs


def test_names_and_reasons_are_text_on_the_page(tmp_path: Path) -> None:
    """A swept value, and what a job printed last, in the table, the figures and their data."""
    hostile = "<img src=x onerror=alert(1)>"
    folder = made_sweep(tmp_path / "s", ["env=csv", f'env.path="a.csv","{hostile}.csv"', "seed=0,1"])
    *jobs, last = folder.manifest().jobs
    for k, job in enumerate(jobs):
        finish(folder, job, 0.1 * k)
    fail(folder, last, "failed", f"{hostile}: a blank between prices")
    page = collect_sweep(load("sweep", [f"dir='{folder.path}'"])).page.read_text()
    drawn = json.loads(page.split('id="chart-data">')[1].split("</script>")[0])
    own = re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)  # all but the inlined library
    assert html.escape(f"{hostile}: a blank between prices", quote=False) in own
    assert "<img" not in own + json.dumps(drawn)
    assert f"{html.escape(hostile, quote=False)}.csv" in json.dumps(drawn)


@pytest.mark.parametrize(
    ("pins", "data", "parent", "said"),
    [
        ({}, "other", "p", "on data other, .* on d"),
        ({"data": "d", "parent": "p"}, "d", "q", "from weights q, the sweep's start settled on p"),
        ({"data": "e", "parent": "p"}, "d", "p", "on data d, the sweep's start on e"),
    ],
)
def test_jobs_that_do_not_compare_are_refused(
    pins: dict[str, str], data: str, parent: str, said: str, tmp_path: Path
) -> None:
    made = [*made_sweep(tmp_path / "names", GRID).manifest().jobs]
    folder = made_sweep(tmp_path / "s", GRID, {job.name: Pin({}, seed=0, **pins) for job in made} if pins else {})
    finish(folder, made[0], 0.1, data="e" if pins.get("data") == "e" else "d")
    finish(folder, made[1], 0.1, data=data, parent=parent)
    with pytest.raises(ConfigError, match=said) as caught:
        collect_sweep(load("sweep", [f"dir='{folder.path}'"]))
    assert str(folder.run_dir(made[1].name)) in str(caught.value)
    assert not (folder.path / "sweep.csv").exists()


def test_jobs_on_several_markets_may_stand_in_one_table(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path / "s", ["env=sp500,synthetic"])
    for number, job in enumerate(folder.manifest().jobs):
        finish(folder, job, 0.1, data=f"d{number}")
    assert len(read_rows(folder, folder.manifest())) == 2


def test_code_that_changed_between_jobs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_sweep(tmp_path / "s", ["algo.cql.alpha=1,5,10"])
    first, second, third = folder.manifest().jobs
    finish(folder, first, 0.1)
    finish(folder, second, 0.2)
    assert leaderboard_of(folder, None).mixed_code == ""
    finish(folder, third, 0.3, code="e" * 40, dirty=True)
    result = collect_sweep(load("sweep", [f"dir='{folder.path}'"]))
    told = f"The code changed while the sweep ran (2 by {'c' * 12}, 1 by {'e' * 12}+; +: with changes not committed)"
    assert told in result.page.read_text()
    tables.show_leaderboard(result.leaderboard)
    assert f"Warning: {told}" in capsys.readouterr().out


DAMAGE: dict[str, tuple[str, bytes]] = {
    "a cut row of returns": ("JOB/validation.csv", b"date,policy,benchmark\n2015-01-05,0.1\n"),
    "returns that are no text": ("JOB/validation.csv", b"\xff\xfe"),
    "a blank line": ("JOB/validation.csv", b"date,policy,benchmark\n\n"),
    "a cut status": ("status/JOB.json", b"{"),
    "a cut manifest": ("sweep.json", b'{"jobs": ['),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str, tmp_path: Path) -> None:
    folder = made_sweep(tmp_path / "s", ["algo.cql.alpha=1"])
    (job,) = folder.manifest().jobs
    finish(folder, job, 0.1)
    name, content = DAMAGE[damage]
    path = folder.path / name.replace("JOB", job.name)
    assert path.exists()
    path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{re.escape(str(path))}: (damaged|not a run)"):
        collect_sweep(load("sweep", [f"dir='{folder.path}'"]))
    assert not (folder.path / "sweep.csv").exists()


@pytest.mark.parametrize("named", ["latest", "'no such folder'"])
def test_no_sweep_is_said(named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?i)no sweep"):
        collect_sweep(load("sweep", [f"dir={named}", f"output_root='{tmp_path}'"]))
