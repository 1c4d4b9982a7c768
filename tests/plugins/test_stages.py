"""A run made with a plugin goes on, is fine-tuned, judged, followed and swept by the commands that FinFlow prints."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "env.episode_days=42", "env.num_envs=4", "budget.collect_episodes=8", "budget.epochs=2",
    "budget.updates_per_epoch=4", "algo.batch_size=32", "algo.network.hidden_dim=16", "algo.network.embed_dim=8",
    "confidence=none", "tracking=none",
]  # fmt: skip
TUNE = [
    "budget.episodes=4", "budget.warmup_episodes=1", "budget.critic_warmup_updates=2", "evaluation.every_episodes=2",
    "algo.batch_size=32", "confidence=none", "tracking=none", "tracking.sinks=[note]",
]  # fmt: skip
WHOLE = [
    "--config-dir", "mine", "plugins=[whole]", "env=csv", "env.source=walk", "env.features=[jump]", "algo=pushed",
    "algo.network.kind=wide", "tracking.sinks=[note]",
]  # fmt: skip


def typed(place: Path, line: str, *more: str) -> list[str]:
    """Lines that a command prints; `more` is appended to it."""
    words = [sys.executable if word == "python" else word for word in shlex.split(line)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*words, *more], cwd=place, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def test_the_printed_commands_work_from_phase_1_to_a_decision(mine: Path) -> None:
    place = mine.parent
    first = typed(place, "python -m finflow pretrain", *WHOLE, *SMALL)
    folder = place / first[-2].removeprefix("Run folder: ")
    assert (folder / "note.txt").read_text() == "epoch 1 0.25\nepoch 2 0.25\n"
    record = json.loads((folder / "run.json").read_text())
    assert len(record["plugins"]["whole"]) == 64
    tuned = typed(place, first[-1].removeprefix("Next: "), *TUNE)
    judged = typed(place, tuned[-1].removeprefix("Next: "), "evaluation.bootstrap_samples=100")
    decided = typed(place, judged[-1].removeprefix("Next: "))
    assert any(line.startswith("Orders: ") for line in decided)


def test_a_sweep_and_its_best_setting_run_with_the_plugin(mine: Path) -> None:
    place = mine.parent
    swept = typed(place, "python -m finflow pretrain", *WHOLE, *SMALL, "-m", "algo.lr=0.0001,0.05")
    assert "Jobs: 2 finished" in "\n".join(swept)
    (again,) = (line.removeprefix("Again: ") for line in swept if line.startswith("Again: "))
    folder = typed(place, again)[-2].removeprefix("Run folder: ")
    config = (place / folder / "config.yaml").read_text()
    assert "plugins:\n- whole\n" in config
    assert "push: 0.25\n" in config
    assert "lr: 0.0001\n" in config or "lr: 0.05\n" in config
