"""Every preset as a small sweep of real jobs; the whole of it is planned and composed."""

import json
import re
import shutil
from pathlib import Path

import pytest

import finflow
from finflow.cli.main import launch
from finflow.config.compose import group_choices, load
from finflow.stages.sweep import SweepResult, collect_sweep
from finflow.sweeps.folder import SweepFolder

from .conftest import ROOT, call
from .tiny import SMALL, TUNE

JOBS = {
    "tune_iql": ("pretrain", 24),
    "tune_bcell": ("finetune", 96),
    "tune_bcell_more": ("finetune", 27),
    "seeds": ("finetune", 10),
    "regimes": ("finetune", 5),
    "folds": ("finetune", 4),
    "ablation": ("finetune", 30),
    "demo": ("pretrain", 2),
}
"""Stage and number of jobs of each preset; the demo sweeps nothing of its own accord."""
SHARED = [*SMALL, "algo.batch_size=16"]
NARROW = {
    "tune_iql": ["algo.horizon=16", "algo.lr=3e-4", "algo.prior_kl_coef=0.02,0.2"],
    "tune_bcell": ["algo.alpha_init=0.25,1.0", "algo.cql.alpha=5", "algo.lr=3e-4"],
    "tune_bcell_more": ["algo.gamma=0.97,0.995", "algo.tau=0.01", "algo.horizon=16"],
    "seeds": ["seed=0,1"],
    "regimes": ["market_regime=all,stable"],
    "folds": ["env=sp500", "fold=2000,2018"],
    "ablation": ["ablation=from_scratch,no_cql", "seed=0"],
    "demo": ["-m", "seed=0,1"],
}
"""What leaves two jobs of each."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with the pretrainings that the presets of finetune start from."""
    folder = tmp_path_factory.mktemp("presets")
    market = [word for word in SHARED if not word.startswith("env=") and not word.startswith("env.synthetic")]
    for words in ([*SHARED, "seed=0"], [*SHARED, "seed=1"], [*market, "fold=2000"], [*market, "fold=2018"]):
        finflow.pretrain(load("pretrain", [*words, f"output_root={folder}"]))
    return folder


def command(preset: str, root: Path) -> list[str]:
    """Command line of a preset that is narrowed to two small jobs."""
    shared = SHARED if preset != "folds" else [w for w in SHARED if not w.startswith(("env=", "env.synthetic"))]
    own = TUNE if JOBS[preset][0] == "finetune" else []
    shared = [w for w in shared if preset != "tune_bcell" or not w.startswith("algo.batch_size")]
    size = ["algo.batch_size=16"] if preset == "tune_bcell" else []
    return [f"experiment={preset}", *shared, *own, *size, *NARROW[preset], f"output_root={root}"]


def run(preset: str, root: Path, place: Path) -> SweepResult:
    """Run it, and collect what came out."""
    done = call(place, ROOT / "experiments" / f"{JOBS[preset][0]}.py", *command(preset, root))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Jobs: 2 finished" in done.stdout
    (folder,) = re.findall(r"^Run folder: (.*)$", done.stdout, flags=re.MULTILINE)
    return collect_sweep(load("sweep", [f"dir='{folder}'"]))


def check(result: SweepResult) -> None:
    rows = result.leaderboard.rows
    assert [row.state for row in rows] == ["finished", "finished"]
    assert all(row.figures["validation_sharpe"] is not None and row.returns is not None for row in rows)
    assert result.leaderboard.luck is not None or result.leaderboard.manifest.stage == "finetune"
    assert (result.best is None) == result.leaderboard.same  # small jobs may all hold 1/N: then none is the best


@pytest.mark.parametrize("preset", [name for name in JOBS if name != "seeds"])
def test_a_preset_runs(preset: str, root: Path, tmp_path: Path) -> None:
    check(run(preset, root, tmp_path))


def test_a_killed_job_runs_again_from_the_same_parent_and_best_runs_again_alike(root: Path, tmp_path: Path) -> None:
    result = run("seeds", root, tmp_path)
    check(result)
    folder = SweepFolder(result.run_dir)
    assert {pin.seed for pin in folder.manifest().pins.values()} == {0, 1}
    before = {path.name: path.read_text() for path in (result.table, result.run_dir / "best.yaml")}
    first = folder.manifest().jobs[1].name
    weights = (folder.run_dir(first) / "weights.safetensors").read_bytes()

    shutil.rmtree(folder.run_dir(first))
    newer = finflow.pretrain(load("pretrain", [*SHARED, "seed=1", "algo.lr=0.01", f"output_root={root}"]))
    again = run("seeds", root, tmp_path)
    assert (folder.run_dir(first) / "weights.safetensors").read_bytes() == weights
    record = json.loads((folder.run_dir(first) / "run.json").read_text())
    assert record["parent"]["sha256"] == folder.manifest().pins[first].parent
    assert record["parent"]["sha256"] != json.loads((newer.run_dir / "summary.json").read_text())["weights_sha256"]
    seconds = re.compile(r",[\d.]+$", flags=re.MULTILINE)
    assert seconds.sub("", again.table.read_text()) == seconds.sub("", before["sweep.csv"])
    assert (again.run_dir / "best.yaml").read_text() == before["best.yaml"]

    best = again.leaderboard.best
    assert best is not None
    line = (
        (again.run_dir / "best.yaml").read_text().split("# Again: python experiments/finetune.py ")[1].splitlines()[0]
    )
    done = call(tmp_path, ROOT / "experiments" / "finetune.py", line, f"output_root={tmp_path}")
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.glob("finetune/*/*/weights.safetensors")
    assert made.read_bytes() == (folder.run_dir(best.job) / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("preset", JOBS)
def test_the_whole_preset_is_planned(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage, jobs = JOBS[preset]
    several = NARROW[preset] if preset == "demo" else []
    assert launch(stage, [f"experiment={preset}", "sweep.dry_run=true", *several]) == 0
    said, warned = capsys.readouterr()
    assert f"Sweep of {jobs} jobs, 0 finished before" in said
    assert ("init.weights=latest: nothing is published; run: " in warned) == (stage == "finetune")
    time, size = re.findall(r"about (\d+\.\d) (?:hours|min) of one core and (\d+\.\d+) [MGT]B", said)[0]
    assert float(time) > 0
    assert float(size) > 0
    assert not list(tmp_path.iterdir())


def test_every_preset_is_among_these() -> None:
    assert set(JOBS) == set(group_choices("finetune")["experiment"])
