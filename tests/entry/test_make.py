"""The Makefile: a plain word about Python, and a pipeline that evaluates the run that it made."""

import os
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import metadata as installed
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import finflow

ROOT = Path(__file__).resolve().parents[2]


STAGE = """#!/bin/bash
echo "$@" >> calls
printf '%s\\n' "$@" >> words
name=$(basename "$1" .py)
[[ " $* " == *" fail=$name "* ]] && exit 5
echo "Run folder: ${PLACE:-out of}/$name run"; echo "Next: nothing"
[[ $name == evaluate ]] && echo "Report: out of/report.html"
exit 0
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, and a set-up `.venv` whose python only writes down how it was called."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(STAGE)
    python.chmod(0o755)
    (tmp_path / ".venv" / "runtime.stamp").touch()
    return tmp_path


def make(folder: Path, *args: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    outer = re.compile(r"MAKE|MFLAGS|(\w+_)?ARGS$|PYTHON$")
    env = {key: value for key, value in os.environ.items() if not outer.match(key)} | variables
    return subprocess.run(["make", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_demo_evaluates_the_run_that_it_made(checkout: Path) -> None:
    done = make(checkout, "demo")
    assert done.returncode == 0, done.stderr
    assert calls(checkout) == [
        "experiments/pretrain.py experiment=demo",
        "experiments/finetune.py experiment=demo init.weights='out of/pretrain run'",
        "experiments/evaluate.py experiment=demo run='out of/finetune run'",
    ]
    assert done.stdout.splitlines()[-1] == "The report: out of/report.html"


def test_train_hands_options_to_the_stages_that_read_them(checkout: Path) -> None:
    args = [
        "ARGS=market_regime=volatile output_root=x",
        "PRETRAIN_ARGS=budget.epochs=3",
        "FINETUNE_ARGS=init.weights=null",
    ]
    assert make(checkout, "train", *args).returncode == 0
    assert calls(checkout) == [
        "experiments/pretrain.py market_regime=volatile output_root=x budget.epochs=3",
        "experiments/finetune.py market_regime=volatile output_root=x init.weights=null",
        "experiments/evaluate.py run='out of/finetune run' output_root=x",
    ]


def test_walkforward_sweeps_the_folds_and_judges_the_sweep_that_it_made(checkout: Path) -> None:
    args = ["ARGS=seed=0,1 output_root=x", "FINETUNE_ARGS=budget.episodes=9", "EVALUATE_ARGS=sectors=s.csv"]
    done = make(checkout, "walkforward", *args)
    assert done.returncode == 0, done.stderr
    assert calls(checkout) == [
        "experiments/pretrain.py experiment=folds seed=0,1 output_root=x",
        "experiments/finetune.py experiment=folds init.weights='out of/pretrain run' seed=0,1 output_root=x"
        " budget.episodes=9",
        "experiments/evaluate.py run='out of/finetune run' output_root=x sectors=s.csv",
    ]
    assert done.stdout.splitlines()[-1] == "The report: out of/report.html"
    (checkout / "calls").unlink()
    assert make(checkout, "walkforward", "ARGS=experiment=[folds,demo]").returncode == 0
    assert calls(checkout)[0] == "experiments/pretrain.py experiment=[folds,demo]"


def test_quoted_values_reach_every_stage_whole(checkout: Path) -> None:
    root = "output_root=/tmp/my dir (1)/a=b"
    done = make(checkout, "train", f"ARGS='{root}' hardware.threads=1 'seed=range(2)'")
    assert done.returncode == 0, done.stderr
    words = (checkout / "words").read_text().splitlines()
    assert words.count(root) == 3
    assert words.count("hardware.threads=1") == 3
    assert words.count("seed=range(2)") == 2


@pytest.mark.parametrize("place", ["it's (mine)", "a=b, c", "plain"])
def test_the_folder_of_a_run_may_have_any_name(checkout: Path, place: str) -> None:
    assert make(checkout, "train", PLACE=place).returncode == 0
    words = (checkout / "words").read_text().splitlines()
    weights = next(word for word in words if word.startswith("init.weights="))
    judged = next(word for word in words if word.startswith("run="))
    assert finflow.load("finetune", [weights]).init.weights == f"{place}/pretrain run"
    assert finflow.load("evaluate", [judged]).run == f"{place}/finetune run"


@pytest.mark.parametrize(("stage", "made"), [("pretrain", 1), ("finetune", 2), ("evaluate", 3)])
def test_the_pipeline_stops_at_the_first_stage_that_fails(checkout: Path, stage: str, made: int) -> None:
    done = make(checkout, "train", f"{stage.upper()}_ARGS=fail={stage}")
    assert done.returncode != 0
    assert len(calls(checkout)) == made
    assert "The report" not in done.stdout


def test_clean_takes_caches_and_venvs_and_leaves_outputs(checkout: Path) -> None:
    made = [".venv-peers/bin/python", ".pytest_cache/x", "finflow/__pycache__/x.pyc", "site/index.html"]
    kept = ["outputs/pretrain/latest/x.json", "finflow/x.py", "my__pycache__.csv"]
    for name in (*made, *kept):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    assert make(checkout, "clean").returncode == 0
    assert [name for name in (*made, ".venv") if (checkout / name).exists()] == []
    assert [name for name in (*kept, "Makefile") if not (checkout / name).exists()] == []


@pytest.mark.parametrize("said", ["echo 3.10", "echo 3.09", "echo 2.07", "exit 127"])
def test_an_old_python_is_refused_in_one_line(tmp_path: Path, said: str) -> None:
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "oldpython"
    python.write_text(f"#!/bin/sh\n{said}\n")
    python.chmod(0o755)
    done = make(tmp_path, "setup", f"PYTHON={python}")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert lines[0].startswith("error: FinFlow needs Python 3.11 or newer")
    assert not (tmp_path / ".venv").exists()


def test_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()[1:]
    listed = [line.split()[0] for line in make(ROOT, "help").stdout.split("\n\n")[0].splitlines()]
    assert listed == targets


def test_every_pin_is_one_that_the_oldest_python_takes() -> None:
    """Debian 12 has Python 3.11.2: a pin that wants 3.11.5 leaves its users without an installation."""
    names = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    wanted: dict[str, str] = {}
    for name in names:
        try:
            wanted[name] = installed(name).get("Requires-Python") or ""
        except PackageNotFoundError:  # of an extra that is not here
            continue
    assert len(wanted) > len(names) / 2
    assert {name: python for name, python in wanted.items() if not SpecifierSet(python).contains("3.11.0")} == {}
