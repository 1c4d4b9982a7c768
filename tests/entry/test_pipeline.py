"""The pipeline as typed: each stage is followed by the very command that its last line names."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "experiment=demo",
    "env=synthetic",
    "env.synthetic.days=1500",
    "env.synthetic.assets=4",
    "env.episode_days=63",
    "budget.collect_episodes=4",
    "budget.crossfit_updates=2",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `experiments/` leads to the checkout's."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    return folder


def run(place: Path, command: str) -> tuple[list[str], Path, str]:
    """Run a command line; its stdout, and what the two closing lines name."""
    words = [sys.executable, *shlex.split(command.removeprefix("python "))]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    *lines, folder, following = done.stdout.splitlines()
    assert folder.startswith("Run folder: ")
    assert following.startswith("Next: ")
    return lines, place / folder.removeprefix("Run folder: "), following.removeprefix("Next: ")


def phases(lines: list[str]) -> list[str]:
    """Names of what a stage says that its seconds went to; they add up to the whole."""
    (line,) = (line for line in lines if line.startswith("Seconds: "))
    parts, whole = line.removeprefix("Seconds: ").split("; in all ")
    seconds = {name: float(value) for name, value in (part.split(" ") for part in parts.split(", "))}
    assert sum(seconds.values()) == pytest.approx(float(whole), abs=0.05 * (len(seconds) + 1))
    assert all(value < float(whole) for value in seconds.values())
    return list(seconds)


def test_each_next_command_works_and_leads_to_a_verdict(place: Path) -> None:
    small = " ".join([*SMALL, "budget.epochs=1", "budget.updates_per_epoch=4"])
    lines, pretrained, following = run(place, f"python experiments/pretrain.py {small}")
    ended = ["validation", "checkpoints", "results", "confidence", "rest"]
    assert phases(lines) == ["prepare", "collect", "updates", *ended]
    assert following.startswith("python experiments/finetune.py ")
    budget = "budget.episodes=4 budget.warmup_episodes=1 budget.critic_warmup_updates=2"
    lines, tuned, following = run(place, f"{following} {budget}")
    trained = ["validation", "checkpoints", "updates", "environment", "results", "confidence"]
    assert phases(lines) == ["prepare", "collect", *trained, "rest"]
    for folder in (pretrained, tuned):
        assert {"config.yaml", "run.json", "metrics.jsonl", "weights.safetensors", "summary.json"} <= {
            path.name for path in folder.iterdir()
        }
    assert following.startswith("python experiments/evaluate.py ")
    lines, judged, following = run(place, f"{following} evaluation.bootstrap_samples=100")
    assert judged.parent == place / "outputs" / "evaluate" / tuned.parent.name
    assert phases(lines) == ["prepare", "evaluate", "explain", "report", "rest"]
    assert place / lines[0].removeprefix("Run judged: ") == tuned
    number = r"-?\d+\.\d+"
    verdict = (
        rf"Verdict: (BEATS|WORSE THAN|INDISTINGUISHABLE FROM) 1/N \(difference {number}, 95 % \[{number}, {number}\]\)"
    )
    assert sum(bool(re.fullmatch(verdict, line)) for line in lines) == 1
    said = "\n".join(lines)
    for part in ("without momentum", "without growth", "shuffled gate", "experts at their priors"):
        assert re.search(rf"{part} +│", said)
    assert "of wealth" in said
    report = place / lines[-1].removeprefix("Report: ")
    assert report == judged / "report.html"
    assert report.stat().st_size > 100_000
    lines, decided, _ = run(place, following)
    written = dict(line.split(": ", 1) for line in lines if line.startswith(("Table: ", "Card: ", "Log: ")))
    assert {(place / written[what]).parent for what in ("Table", "Card")} == {decided}
    assert (place / written["Log"]).parent == place / "outputs" / "decisions"
    assert decided.parent == place / "outputs" / "decide" / tuned.parent.name
    assert {p.name for p in place.iterdir()} == {"experiments", "outputs"}


def test_offline_data_by_hand_feeds_pretraining(place: Path) -> None:
    lines, _, following = run(place, f"python experiments/collect.py {' '.join(SMALL[:-1])} episodes=3 out=mine.npz")
    assert re.fullmatch(r"\d+ transitions in mine.npz", lines[-1])
    assert (place / "mine.npz").exists()
    run(place, f"{following} budget.epochs=1 budget.updates_per_epoch=2")
    (place / "mine.npz").unlink()
