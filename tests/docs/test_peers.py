"""The model of another library on docs/judge.md is trained and judged, where there is that library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, all_blocks
from .test_python import PEERS, SMALL

FOLDERS = list(ROOT.glob(".venv-peers/lib/python*/site-packages"))


@pytest.mark.skipif(
    not any((folder / "stable_baselines3").exists() for folder in FOLDERS),
    reason="needs Stable-Baselines3 in .venv-peers: make .venv-peers/ready.stamp",
)
def test_the_model_of_the_page_is_trained_and_judged(tmp_path: Path) -> None:
    (block,) = [block for block in all_blocks() if PEERS in block.text]
    assert len([line for line in block.text.splitlines() if line]) < 10
    # This interpreter with the libraries of the other venv behind its own: both have torch and Gymnasium.
    program = (
        f"import sys; sys.path += {[str(folder) for folder in FOLDERS]}\n"
        f"import finflow; load = finflow.load\n"
        f"finflow.load = lambda stage, words: load(stage, [*words, *{SMALL['judge']}, 'fold=auto'])\n"
        f"{block.text.replace('100_000', '2_048')}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line, report = done.stdout.strip().rsplit(" ", 1)
    assert line.startswith("Verdict: ")
    assert "judge / PPO" in (tmp_path / report).read_text()
    assert len((tmp_path / "outputs/test_ledger.jsonl").read_text().splitlines()) == 1
