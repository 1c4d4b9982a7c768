"""A sweep whose settings are one policy names no best one; and how long one that is not over may take."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finflow.cli.main import launch
from finflow.cli.sweep import watched
from finflow.config.compose import load
from finflow.evaluation.sharpe_test import sharpe_difference
from finflow.report.sweep_figures import parallel_chart
from finflow.report.tables import signed
from finflow.seeding import numpy_stream
from finflow.stages.sweep import collect_sweep, sweep_folder
from finflow.sweeps.cost import time_left
from finflow.sweeps.folder import Status, SweepFolder
from finflow.sweeps.leaderboard import track_of

from .made import finish, made_sweep

LINE = ["env=synthetic", "ablation=none,no_cql,no_anchor", "seed=0,1"]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Six jobs that kept the hand-over of their seed's parent, as three settings of the same two policies."""
    made = made_sweep(tmp_path / "s", LINE)
    jobs = made.manifest().jobs
    for at, job in enumerate(jobs):
        finish(made, job, 0.5 + 0.1 * (at % 2))
        if at > 1:
            shutil.copy(made.run_dir(jobs[at % 2].name) / "validation.csv", made.run_dir(job.name) / "validation.csv")
        summary = made.run_dir(job.name) / "summary.json"
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"selected_episode": 0}))
    return made


def move(folder: SweepFolder) -> None:
    """Another return of the last job on its first day."""
    place = folder.run_dir(folder.manifest().jobs[5].name) / "validation.csv"
    head, first, *rest = place.read_text().splitlines()
    day, policy, benchmark = first.split(",")
    place.write_text("\n".join([head, f"{day},{float(policy) + 1e-4!r},{benchmark}", *rest]) + "\n")


def test_settings_that_are_the_same_are_not_ranked(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.path / "best.yaml").write_text("of an earlier table")
    assert launch("sweep", [f"dir='{folder.path}'"]) == 0
    said, page = capsys.readouterr().out, (folder.path / "sweep.html").read_text()
    why = (
        "Their returns are identical on every validation day, since all 6 jobs kept the hand-over, the policy of "
        "phase 1. There is nothing to rank."
    )
    assert f"All 3 settings are the same policy. {why}" in said
    assert why in page
    assert "3 settings in 6 jobs: </span><strong>all the same policy" in page
    for claim in ("Best", "overfitting", "Deflated", "Again: "):
        assert claim not in said
    for claim in ("Best of", "Probability of overfitting", 'id="parallel"'):
        assert claim not in page.split("<script>")[0]
    assert not (folder.path / "best.yaml").exists()
    ranks = [row.split(",")[0] for row in (folder.path / "sweep.csv").read_text().splitlines()]
    assert ranks == ["rank", *[""] * 6]
    runs = ",".join(str(folder.run_dir(job.name)) for job in folder.manifest().jobs[:2])
    assert f"evaluate.py 'run=[{runs}]'" in said.splitlines()[-1].replace('"', "")


def test_one_setting_that_differs_makes_a_ranking(folder: SweepFolder) -> None:
    """The two that are the same count as one setting where overfitting is asked about."""
    move(folder)
    board = collect_sweep(load("sweep", [f"dir='{folder.path}'"])).leaderboard
    assert not board.same
    settings = [setting.values["ablation"] for setting in board.settings]
    ranks = dict(zip(settings, board.ranks, strict=True))
    assert ranks["none"] == ranks["no_cql"] != ranks["no_anchor"]
    assert sorted(rank for rank in board.ranks if rank) in ([1, 1, 2], [1, 2, 2])
    assert [row.split(",")[0] for row in (folder.path / "sweep.csv").read_text().splitlines()[1:]] == [
        str(rank) for rank in board.ranks for _ in range(2)
    ]
    assert board.best is not None
    assert board.luck is not None
    assert (board.luck.compared, board.luck.deflated.trials) == (2, 6)


def test_each_setting_is_compared_with_the_first(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    move(folder)
    assert launch("sweep", [f"dir='{folder.path}'"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    board = collect_sweep(load("sweep", [f"dir='{folder.path}'"])).leaderboard
    found = {setting.values["ablation"]: one for setting, one in zip(board.settings, board.beyond, strict=True)}
    policies = {setting.values["ablation"]: track_of(setting) for setting in board.settings}
    other, reference = policies["no_anchor"], policies["none"]
    assert other is not None
    assert reference is not None
    test = sharpe_difference(
        other.policy, reference.policy, samples=5000, block_days=21, rng=numpy_stream(0, "sweep/reference")
    )
    assert found == {"none": None, "no_cql": (0.0, 0.0, 0.0), "no_anchor": (test.difference, test.low, test.high)}
    assert test.low < test.difference < test.high
    assert "no_cql is the same policy as none, with identical returns on every validation day" in said
    middle, low, high = (signed(x, 2).text for x in (test.difference, test.low, test.high))
    page = (folder.path / "sweep.html").read_text()
    for text in ("share a rank", "Differences are Sharpe ratios minus those of none, the first setting"):
        assert text in said
        assert text in page
    assert f"{middle} [{low}, {high}]" in page


def test_the_first_of_equal_jobs_stands_out(folder: SweepFolder) -> None:
    """As in the table, which names the first of equal settings."""
    move(folder)
    chart = parallel_chart(collect_sweep(load("sweep", [f"dir='{folder.path}'"])).leaderboard)
    assert chart is not None
    (best,) = [trace for trace in chart.figure.to_dict()["data"] if trace["name"] == "best"]
    assert best["customdata"][0].startswith(folder.manifest().jobs[1].name)


def test_weeks_are_called_weeks(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for job in folder.manifest().jobs:
        record = folder.run_dir(job.name) / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"calendar": {"rows_a_year": 52}}))
    assert launch("sweep", [f"dir='{folder.path}'"]) == 0
    page = (folder.path / "sweep.html").read_text().split("<script>")[0]
    assert "Settings on validation weeks" in capsys.readouterr().out
    assert "validation weeks alone" in page
    assert "% a week" in page
    assert "validation day" not in page


def test_an_ablation_is_evaluated_whole(folder: SweepFolder) -> None:
    """Its settings are compared on one page; the best of a search is evaluated alone."""
    move(folder)
    result = collect_sweep(load("sweep", [f"dir='{folder.path}'"]))
    assert not result.leaderboard.same
    assert result.next_command.endswith(f"evaluate.py run={folder.path}")


def test_the_newest_sweep_is_found_wherever_it_lies_under_the_outputs(tmp_path: Path) -> None:
    root = tmp_path / "out"
    own = made_sweep(root / "finetune" / "x" / "sweep-1", LINE).path
    os.utime(own / "sweep.json", (1e9, 1e9))
    for away in (root / "my sweep", root / "plan" / "2018-volatile"):
        made_sweep(away, LINE)
        assert sweep_folder(root, "latest") == away
        shutil.rmtree(away)
    assert sweep_folder(root, "latest") == own


def test_an_interrupted_job_is_among_those_that_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_sweep(tmp_path / "s", LINE)
    jobs = made.manifest().jobs
    with watched(made, [job.name for job in jobs], len(jobs)):
        started = datetime.now(UTC).isoformat(timespec="seconds")
        made.record(jobs[0].name, Status("failed", "why", 5, 60.0, started=started))
        made.record(jobs[1].name, Status("interrupted", "ended by SIGINT", 130, 6.0, started=started))
    assert [line.partition("; ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "5 left, about 5.0 min",
        "5 left, about 5.0 min",
    ]


def test_time_that_is_left() -> None:
    assert time_left([], 12, 1) == ""
    assert time_left([60.0, 120.0], 0, 1) == ""
    assert time_left([60.0, 120.0], 10, 1) == "; 10 left, about 15.0 min"
    assert time_left([60.0, 120.0], 10, 4) == "; 10 left, about 4.5 min"
    assert time_left([3600.0], 3, 2) == "; 3 left, about 2.0 hours"
