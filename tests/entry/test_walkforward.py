"""`make walkforward`, run for real at budgets of seconds: two folds, two seeds, one report."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import finflow
from finflow.artifacts.runs import opened_by
from finflow.errors import ConfigError, ParentError
from finflow.evaluation.backtest import backtest
from finflow.evaluation.metrics import sharpe_ratio
from finflow.evaluation.stitching import join
from finflow.stages.loaded_run import Trained, load_trained
from finflow.stages.parents import pin
from finflow.stages.run_groups import Group
from finflow.sweeps.plan import plan_of

from .test_make import ROOT

TINY = (
    "budget.collect_episodes=8 budget.crossfit_updates=2 budget.updates_per_epoch=4 env.episode_days=42 "
    "env.num_envs=4 algo.batch_size=32 "
    "algo.network.hidden_dim=8 algo.network.embed_dim=4 hardware.threads=1 tracking=none"
)
FOLDS, SEEDS = ("2000", "2008"), (0, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, subprocess.CompletedProcess[str]]":
    """A checkout whose `.venv` is the interpreter of the tests, and what the command printed there."""
    folder = tmp_path_factory.mktemp("walk forward")
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, folder)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / "runtime.stamp").touch()
    tune = "budget.episodes=4 budget.warmup_episodes=1 budget.critic_warmup_updates=2 budget.refit_updates=2"
    line = [
        f"ARGS=fold={','.join(FOLDS)} {TINY}",
        "PRETRAIN_ARGS=budget.epochs=1",  # not what finetune would look for: it is told the folder
        f"FINETUNE_ARGS=seed={','.join(map(str, SEEDS))} {tune} evaluation.every_episodes=4",
        "EVALUATE_ARGS=evaluation.bootstrap_samples=200",
    ]
    env = {k: v for k, v in os.environ.items() if not re.match(r"MAKE|MFLAGS|(\w+_)?ARGS$|PYTHON$", k)}
    command = ["make", "walkforward", *line]
    return folder, subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(made: "tuple[Path, subprocess.CompletedProcess[str]]") -> dict[tuple[str, int], Trained]:
    """Every run that was judged, by fold and seed."""
    root = made[0] / "outputs"
    config = finflow.load("evaluate", [f"output_root='{root}'"])
    folders = sorted(path.parent for path in root.glob("finetune/*/sweep-*/*/summary.json"))
    found = [load_trained(config, str(folder)) for folder in folders]
    return {(run.prepared.fold.name, run.config.seed): run for run in found}


def judged(folder: Path) -> Path:
    (summary,) = folder.glob("outputs/evaluate/*/*/summary.json")
    return summary.parent


def test_it_ends_with_one_verdict_and_the_reports_path(
    made: "tuple[Path, subprocess.CompletedProcess[str]]",
) -> None:
    folder, done = made
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Verdict: ") == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("The report: ")
    assert (folder / last.removeprefix("The report: ")).samefile(judged(folder) / "report.html")
    assert "Parents: 4 fine-tunings of 2 pretrainings" in done.stdout


def test_each_fold_starts_from_its_own_pretraining_and_is_opened_once(
    made: "tuple[Path, subprocess.CompletedProcess[str]]", runs: dict[tuple[str, int], Trained]
) -> None:
    assert set(runs) == {(fold, seed) for fold in FOLDS for seed in SEEDS}
    assert {run.record["parent"]["facts"]["fold"] == fold for (fold, _), run in runs.items()} == {True}
    lines = [json.loads(text) for text in (made[0] / "outputs" / "test_ledger.jsonl").read_text().splitlines()]
    assert Counter(line["fold"] for line in lines) == dict.fromkeys(FOLDS, 1)
    assert all(len(line["run"].split(", ")) == len(SEEDS) for line in lines)


def test_seeds_are_averaged_in_each_window_and_the_windows_joined(
    made: "tuple[Path, subprocess.CompletedProcess[str]]", runs: dict[tuple[str, int], Trained]
) -> None:
    summary = json.loads((judged(made[0]) / "summary.json").read_text())
    assert summary["kind"] == "ensemble"

    def track(fold: str, *seeds: int) -> object:
        group = [runs[fold, seed] for seed in seeds]
        own = group[0].prepared
        act = Group(tuple(group)).policy.act
        return backtest(own.market, own.fold.test, own.accounting, {"policy": act})["policy"]

    whole = join([track(fold, *SEEDS) for fold in FOLDS])  # type: ignore[misc]
    assert summary["metrics"]["policy"]["sharpe"] == pytest.approx(sharpe_ratio(whole.net), rel=1e-9)
    rows = (judged(made[0]) / "returns.csv").read_text().splitlines()[1:]
    assert len(rows) == len(whole.net)
    assert [row.split(",")[0] for row in rows] == [str(day) for day in whole.dates]
    study = summary["study"]
    assert [member["label"] for member in study["members"]] == [f"fold {fold}" for fold in FOLDS]
    assert [member["label"] for member in study["seeds"]] == [f"seed {seed}" for seed in SEEDS]
    for seed, member in zip(SEEDS, study["seeds"], strict=True):
        alone = join([track(fold, seed) for fold in FOLDS])  # type: ignore[misc]
        assert member["metrics"]["sharpe"] == pytest.approx(sharpe_ratio(alone.net), rel=1e-9)
        assert member["verdict"]["opponent"] == summary["verdict"]["opponent"]
    assert study["underpowered"] is True
    assert study["middle"][0] == pytest.approx(np.mean([m["metrics"]["sharpe"] for m in study["seeds"]]))


def test_the_page_shows_each_window_each_seed_and_the_pooled_verdict(
    made: "tuple[Path, subprocess.CompletedProcess[str]]",
) -> None:
    page = (judged(made[0]) / "report.html").read_text()
    cells = page.split('id="study-table"')[1].split("</table>")[0]
    firsts = re.findall(r"<tr[^>]*>\s*<td[^>]*>([^<]+)</td>", cells)
    assert firsts == ["fold 2000", "fold 2008", "seed 0, pooled", "seed 1, pooled", "average, pooled"]
    assert "Would a regression have done it?" in page
    assert "2 seeds: underpowered" in page


def test_a_window_that_seeds_shared_is_no_one_runs_own(
    made: "tuple[Path, subprocess.CompletedProcess[str]]", runs: dict[tuple[str, int], Trained]
) -> None:
    for (fold, _), run in runs.items():
        digest = str(run.summary["weights_sha256"])
        assert opened_by(made[0] / "outputs", [digest], fold, list(run.prepared.dates["test"])) is None


def test_folds_of_different_seeds_are_refused_and_no_window_is_opened(
    made: "tuple[Path, subprocess.CompletedProcess[str]]", runs: dict[tuple[str, int], Trained]
) -> None:
    root = made[0] / "outputs"
    before = (root / "test_ledger.jsonl").read_text()
    named = ",".join(f"'{runs[key].folder}'" for key in (("2000", 0), ("2000", 1), ("2008", 0)))
    with pytest.raises(ConfigError, match=r"fold 2000 has seeds \[0, 1\], fold 2008 has \[0\]; name runs of the same"):
        finflow.evaluate(finflow.load("evaluate", [f"output_root='{root}'", f"run=[{named}]"]))
    assert (root / "test_ledger.jsonl").read_text() == before


def test_a_sweep_without_a_job_for_a_fold_is_no_parent(
    made: "tuple[Path, subprocess.CompletedProcess[str]]",
) -> None:
    root = made[0] / "outputs"
    (sweep,) = root.glob("pretrain/*/sweep-*")
    plan = plan_of("finetune", [*TINY.split(), f"output_root='{root}'", f"init.weights='{sweep}'", "fold=2000,2018"])
    with pytest.raises(ParentError, match=r"0 of its finished jobs have fold=2018; name a sweep that has one"):
        pin("finetune", plan)
