"""The sink on the real client, offline: what is logged is read back by the client's own reader."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import KEY, Client, kinds, offline_runs, rows_of, truth

DRIVE = """
import json, sys, threading
from pathlib import Path
import numpy as np
from finflow.schema.sections import Tracking, Wandb
from finflow.tracking.sink import RunOutcome, Start
from finflow.tracking.tracker import make_tracker

folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
patience = float(sys.argv[4])
folder.mkdir(exist_ok=True)
wandb = Wandb(project="desk", entity=None, mode="offline", group=None, tags=["a", "b"])
tracker = make_tracker(Tracking(tensorboard=False, sinks=[], wandb=wandb, close_timeout=patience), folder)
record = {"seed": 3, "versions": {"torch": "2"}, "parent": {"sha256": "ab" * 32, "path": "outputs/p", "weights": "w"}}
tracker.begin(Start("finetune", "bcell", {"algo": {"lr": 3e-4, "name": "bcell"}, "seed": 3}, record, "sweep-1"))
rng = np.random.default_rng(0)
"""
RUN = """
for step in range(first, last):
    if step % 2 == 0:
        tracker.histogram("episode", step, "weights/actor", rng.normal(size=(40, 3)))
    row = {"sharpe": float(rng.normal()), "critic_loss": 0.1 + 0.2 * step, "undefined": None, "tiny": 5e-324 * step}
    if step % 2 == 0:
        row["validation_sharpe"] = -float(step)
    tracker.log("episode", step, row)
tracker.alert("episode", last - 1, "monitor: entropy fell")
(folder / "weights.safetensors").write_bytes(b"weights")


def figures():
    import plotly.graph_objects as go

    return {"curves/loss": go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))}


tracker.finish(RunOutcome({"selected": {"x": 1.5}, "stage": "finetune"}, {"weights": folder / "weights.safetensors"},
                       figures))
tracker.close()
"""


def drive(python: Client, folder: Path, first: int, last: int) -> str:
    done = python("-c", DRIVE + RUN, folder, first, last, 30, WANDB_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


@pytest.fixture(scope="module")
def run_dir(python: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert drive(python, folder, 1, 6) == ""
    return folder


@pytest.fixture(scope="module")
def found(run_dir: Path, records: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    (place,) = offline_runs(run_dir)
    return records(place)


def test_rows_come_back_to_the_bit(run_dir: Path, found: list[dict[str, Any]]) -> None:
    assert rows_of(found, "episode") == truth(run_dir / "metrics.jsonl")
    assert len(truth(run_dir / "metrics.jsonl")) == 5


def test_every_metric_counts_by_its_own_step(found: list[dict[str, Any]]) -> None:
    defined = kinds(found, "metric")
    assert any(metric.get("glob_name") == "*" and metric.get("step_metric") == "episode" for metric in defined)
    best = next(metric for metric in defined if metric.get("name") == "validation_sharpe")
    assert "max" in json.dumps(best)


def test_config_summary_and_identity(run_dir: Path, summary: Callable[[Path], dict[str, Any]]) -> None:
    told = summary(offline_runs(run_dir)[0])
    assert (told["project"], told["state"], told["exit_code"]) == ("desk", "finished", 0)
    assert told["config"]["algo"] == {"lr": 3e-4, "name": "bcell"}
    assert told["config"]["provenance"]["versions"] == {"torch": "2"}
    assert told["config"]["provenance"]["parent"] == {"sha256": "ab" * 32, "weights": "w"}
    shown = told["summary"]
    assert shown["result.selected.x"] == 1.5
    assert shown["sharpe"] == truth(run_dir / "metrics.jsonl")[-1]["sharpe"]
    assert shown["weights/actor"]["_type"] == "histogram"
    assert sum(shown["weights/actor"]["values"]) == 120
    assert json.loads((run_dir / "wandb.json").read_text()) == {
        "id": told["run_id"], "project": "desk", "entity": None, "group": "sweep-1", "url": None,
    }  # fmt: skip


def test_group_tags_and_kind_of_job(found: list[dict[str, Any]]) -> None:
    (run,) = kinds(found, "run")
    assert (run["run_group"], run["job_type"], run["tags"]) == ("sweep-1", "finetune", ["a", "b"])


def test_alerts_tables_figures_and_weights(run_dir: Path, found: list[dict[str, Any]]) -> None:
    (alert,) = kinds(found, "alert")
    assert "episode 5: monitor: entropy fell" in json.dumps(alert)
    files = offline_runs(run_dir)[0] / "files" / "media"
    tables = {path.name.split("_")[0]: json.loads(path.read_text()) for path in (files / "table").glob("*.json")}
    assert [row[0] for row in tables["validation"]["data"]] == [2, 4]
    assert tables["alerts"]["data"] == [[5, "monitor: entropy fell"]]
    (figure,) = (files / "plotly").rglob("*.json")
    assert json.loads(figure.read_text())["data"][0]["y"] == [3, 4]
    weights = json.dumps([record for record in found if record["type"] == "artifact"])
    assert "finetune-weights" in weights
    assert '"sha256-' in weights


def test_the_key_is_written_nowhere(run_dir: Path, home: Path) -> None:
    for folder in (run_dir, home):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert len(list(run_dir.rglob("*.log"))) > 0  # what the client notes for itself is looked at as well


def test_a_run_that_goes_on_keeps_its_id(
    python: Client, run_dir: Path, records: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    drive(python, folder, 1, 4)
    drive(python, folder, 4, 6)
    first, second = offline_runs(folder)
    assert first.name.split("-")[-1] == second.name.split("-")[-1]
    assert [row["episode"] for row in rows_of(records(second), "episode")] == [4, 5]
    assert first.name.split("-")[-1] != offline_runs(run_dir)[0].name.split("-")[-1]


def test_a_client_that_hangs_costs_a_bounded_wait_and_the_process_ends(python: Client, tmp_path: Path) -> None:
    """Its process is stopped in the middle of the run, as if the disk below it had gone away."""
    body = """
import os, signal, time
thread = next(t for t in threading.enumerate() if t.name == "tracking.wandb")
while not (folder / "wandb.json").exists():
    time.sleep(0.02)
from wandb.sdk import wandb_setup
service = wandb_setup.singleton()._connection._proc._process
os.kill(service.pid, signal.SIGSTOP)
begin = time.monotonic()
for step in range(3000):
    tracker.log("episode", step, {"x": 0.5})
loop = time.monotonic()
tracker.close()
print(json.dumps({"loop": loop - begin, "end": time.monotonic() - loop, "ended": service.wait(5)}))
"""
    begin = time.monotonic()
    done = python("-c", DRIVE + body, tmp_path / "run", 0, 0, 1.5)
    took = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["loop"] < 1.5
    assert 1.4 < told["end"] < 2.5
    assert told["ended"] == -9
    assert took < 15
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: tracking.wandb: switched off for the rest of the run (not done 1.5 s after")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3000


def test_a_missing_client_is_said_once(python: Client, tmp_path: Path) -> None:
    done = python("-c", "import sys; sys.modules['wandb'] = None" + DRIVE + RUN, tmp_path / "run", 1, 4, 30)
    assert done.returncode == 0, done.stderr
    assert re.match(r"warning: tracking\.wandb: switched off for the rest of the run \(.*wandb", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert len(truth(tmp_path / "run" / "metrics.jsonl")) == 3
