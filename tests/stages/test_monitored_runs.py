"""Whole runs under the monitor: healthy ones stay silent and unchanged, diverging ones are mended or stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import finflow
from finflow.errors import DivergedError
from finflow.io.weights import load_weights
from finflow.stages.results import PretrainResult

from .conftest import TINY, TUNE

ROOT = Path(__file__).resolve().parents[2]
MARKET = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=4", *TINY, "tracking=none"]
QUICK = ["monitor.every=5", "monitor.act.cooldown=10", "budget.epochs=6", "budget.updates_per_epoch=20"]


def alerts(folder: Path) -> list[str]:
    path = folder / "alerts.jsonl"
    return [json.loads(line)["message"] for line in path.read_text().splitlines()] if path.exists() else []


def newest(root: Path, stage: str) -> Path:
    return max((root / stage).glob("*/2*"), key=lambda path: path.name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def pretrained(root: Path) -> PretrainResult:
    return finflow.pretrain(finflow.load("pretrain", [*MARKET, f"output_root={root}"]))


def test_a_healthy_run_is_silent_and_the_same_in_every_mode(root: Path, pretrained: PretrainResult) -> None:
    assert alerts(pretrained.run_dir) == []
    files: list[dict[str, bytes]] = []
    for mode in ("off", "warn", "act"):
        line = [*MARKET, *TUNE, f"output_root={root}", f"monitor={mode}", "monitor.every=5"]
        result = finflow.finetune(finflow.load("finetune", line))
        assert alerts(result.run_dir) == []
        files.append({name: (result.run_dir / name).read_bytes() for name in ("weights.safetensors", "metrics.jsonl")})
    assert files[0] == files[1]
    assert files[0]["weights.safetensors"] == files[2]["weights.safetensors"]


def test_acting_mends_what_a_warning_does_not(tmp_path: Path) -> None:
    """A learning rate a hundred million times too high: warned, the run ends at a NaN; mended, it ends well."""
    line = [*MARKET, *QUICK[2:], "monitor.every=1", f"output_root={tmp_path}", "algo.critic_lr=1e5"]
    acting = ["monitor=act", "monitor.act.cooldown=2", "monitor.act.max_interventions=40"]
    with pytest.raises(DivergedError, match="not finite"):
        finflow.pretrain(finflow.load("pretrain", line))
    warned = alerts(newest(tmp_path, "pretrain"))
    assert any("lower algo.lr" in message for message in warned)
    assert not any("measure" in message for message in warned)
    result = finflow.pretrain(finflow.load("pretrain", [*line, *acting]))
    mended = alerts(result.run_dir)
    assert any("learning rate lowered to 0.5" in message for message in mended)
    assert any("back to" in message for message in mended)
    rows = [json.loads(text) for text in result.metrics_path.read_text().splitlines()]
    assert rows[-1]["lr_factor"] < 0.5
    assert rows[-1]["v_loss"] < 1.0


def test_acting_raises_cql_in_a_real_run(root: Path, pretrained: PretrainResult) -> None:
    line = [*MARKET, *TUNE, f"output_root={root}", "monitor=act", "monitor.q_value=1e-9", "monitor.every=5",
            "monitor.act.cooldown=20"]  # fmt: skip
    result = finflow.finetune(finflow.load("finetune", line))
    assert any("q_mean" in message and "CQL raised to 2 times" in message for message in alerts(result.run_dir))
    rows = [json.loads(text) for text in result.metrics_path.read_text().splitlines()]
    assert rows[-1]["cql_factor"] >= 2.0


def test_a_diverged_run_keeps_the_last_good_weights(root: Path, pretrained: PretrainResult) -> None:
    line = [*MARKET, *TUNE, *QUICK[:2], f"output_root={root}", "monitor=act", "algo.lr=1e20",
            "budget.episodes=16"]  # fmt: skip
    with pytest.raises(DivergedError, match=r"^episode \d+, update \d+: .* after 5 measures"):
        finflow.finetune(finflow.load("finetune", line))
    folder = newest(root, "finetune")
    assert not (folder / "summary.json").exists()
    tensors, _ = load_weights(folder / "weights.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_warned_mended_taken_back_and_stopped_at_the_door(tmp_path: Path) -> None:
    """The whole escalation, through the entry point: one line each, the last of them the reason, exit code 5."""
    words = [*MARKET, *QUICK, "monitor=act", "algo.lr=1e4", f"output_root={tmp_path}"]
    command = [sys.executable, str(ROOT / "experiments" / "pretrain.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: epoch ")
    assert "after 5 measures of monitor=act" in done.stderr.splitlines()[-1]
    said = alerts(newest(tmp_path, "pretrain"))
    stages = [("; lower algo.lr", "warned"), ("learning rate lowered", "mended"), ("back to", "taken back")]
    for fragment, stage in stages:
        assert any(fragment in message for message in said), stage
    for message in said:
        text = message.removeprefix("monitor: ").rsplit(" (update", 1)[0]
        assert f": {text}" in done.stderr
