"""FinFlow as a package: one console command, its configurations inside, and a public API."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import finflow
from finflow.cli.commands import COMMANDS
from finflow.schema import STAGES

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=3", "budget.collect_episodes=4",
    "budget.crossfit_updates=2", "budget.epochs=1", "budget.updates_per_epoch=2", "env.episode_days=42",
    "algo.network.hidden_dim=8", "algo.network.embed_dim=8", "algo.batch_size=32", "tracking=none",
]  # fmt: skip


def run(place: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a venv with the wheel in it; the libraries are those of the tests."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "finflow", place / "finflow", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    made = run(place, *pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    assert made.returncode == 0, made.stderr
    assert run(place, sys.executable, "-m", "venv", "--without-pip", "venv").returncode == 0
    python = place / "venv" / "bin" / "python"
    (wheel,) = (place / "dist").glob("*.whl")
    own = [*pip, "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    done = run(place, *own)
    assert done.returncode == 0, done.stderr
    (site,) = (place / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python.parent


def test_the_wheel_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(tmp_path, str(installed / "python"), "-c", "import finflow; print(finflow.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    look = run(tmp_path, str(installed / "finflow"), "look")
    assert (look.returncode, "Fold 2018" in look.stdout) == (0, True), look.stderr
    assert list(tmp_path.iterdir()) == []
    done = run(tmp_path, str(installed / "finflow"), "pretrain", *TINY)
    assert done.returncode == 0, done.stderr
    *_, folder, following = done.stdout.splitlines()
    assert (tmp_path / folder.removeprefix("Run folder: ") / "weights.safetensors").exists()
    assert re.match(r"Next: (\S*/)?finflow finetune env=synthetic ", following)


def test_the_jobs_of_a_sweep_are_started_as_it_was(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "fast.yaml").write_text("# @package _global_\nalgo:\n  lr: 0.002\n")
    words = ["-m", "finflow", "pretrain", "-m", "--config-dir", "mine", "experiment=fast", *TINY, "seed=0,1"]
    done = run(tmp_path, str(installed / "python"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Jobs: 2 finished" in done.stdout
    assert re.match(r"Next: (\S*/)?python -m finflow finetune env=synthetic ", done.stdout.splitlines()[-1])
    configs = [path.read_text() for path in tmp_path.glob("outputs/pretrain/*/sweep-*/*/config.yaml")]
    assert ["lr: 0.002" in text for text in configs] == [True, True]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, f"finflow {finflow.__version__}\n"),
        (["pretrain", "seed=x"], 2, "error: seed=x: should be a valid integer"),
        (["train"], 2, "error: train: no such command; choose one of pretrain, finetune"),
        (["--cfg"], 2, "error: --cfg: no such command"),
        (["look", "--help"], 0, "python -m finflow look [key=value ...]"),
        (["-sc", "install=bash"], 0, "complete -o nospace"),
    ],
)
def test_the_one_command(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-m", "finflow", *words, PYTHONPATH=str(ROOT))
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_alone_it_lists_the_commands(words: list[str], tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-m", "finflow", *words, PYTHONPATH=str(ROOT))
    assert [line.split()[0] for line in done.stdout.splitlines()[2 : 2 + len(COMMANDS)]] == list(COMMANDS)
    assert done.returncode == (0 if words else 2)


@pytest.mark.parametrize(
    ("line", "completed"),
    [("finflow pre", "pretrain\n"), ("finflow finetune budget.epi", "budget.episodes=\n")],
)
def test_a_shell_completes_command_and_keys(line: str, completed: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "finflow", "-sc", "query=bash"]
    assert run(tmp_path, *words, PYTHONPATH=str(ROOT), COMP_LINE=line).stdout == completed


def test_there_is_a_command_for_every_stage() -> None:
    assert set(COMMANDS) == set(STAGES)
    assert {path.stem for path in (ROOT / "experiments").glob("*.py")} == set(STAGES)


def test_the_public_api_is_what_dir_shows() -> None:
    shown = dir(finflow)
    assert "__version__" in shown
    assert all(callable(getattr(finflow, name)) for name in shown if not name.startswith("__"))
    assert {"pretrain", "finetune", "evaluate", "explain", "load"} < set(shown)
    assert not {"os", "Any", "import_module", "cli", "schema"} & set(shown)
