"""The real client, real runs and a loopback server: what is read back, synced or sent is what `metrics.jsonl` holds."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finflow.config.compose import load
from finflow.stages.run import start_of
from finflow.sweeps.folder import Manifest, SweepFolder

from .conftest import KEY, ROOT, SMALL, TUNE, Client, offline_runs, rows_of, truth
from .test_wandb import DRIVE, RUN
from .wandb_server import ENTITY, LoopbackWandb, Run

WANDB = ["tracking=wandb", "tracking.wandb.project=desk"]
ONLINE = DRIVE.replace('mode="offline"', 'mode="online"')


@pytest.fixture
def server() -> Iterator[LoopbackWandb]:
    loopback = LoopbackWandb()
    yield loopback
    loopback.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[LoopbackWandb]:
    loopback = LoopbackWandb()
    yield loopback
    assert loopback.unknown == []
    loopback.close()


def entry(python: Client, stage: str, *args: str, **variables: str) -> Path:
    """Run an entry point; its folder."""
    done = python(ROOT / "experiments" / f"{stage}.py", *args, **variables)
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stderr
    return Path(done.stdout.split("Run folder: ")[-1].splitlines()[0])


@pytest.fixture(scope="module")
def pretrained(python: Client, home: Path) -> Path:
    return home / entry(python, "pretrain", *SMALL, *WANDB, "tracking.wandb.group=first")


@pytest.fixture(scope="module")
def synced(python: Client, shared: LoopbackWandb, pretrained: Path) -> Run:
    (place,) = offline_runs(pretrained)
    done = python("-m", "wandb", "sync", place, WANDB_API_KEY=KEY, WANDB_BASE_URL=shared.base)
    assert done.returncode == 0, done.stderr
    return shared.run("pretrain")


@pytest.fixture(scope="module")
def finetuned(python: Client, home: Path, shared: LoopbackWandb, synced: Run) -> Path:
    return home / entry(
        python,
        "finetune",
        *SMALL,
        *TUNE,
        *WANDB,
        "tracking.wandb.mode=online",
        WANDB_API_KEY=KEY,
        WANDB_BASE_URL=shared.base,
    )


def test_an_offline_run_read_back_is_the_truth(
    pretrained: Path, records: Callable[[Path], list[dict[str, Any]]]
) -> None:
    (place,) = offline_runs(pretrained)
    rows = truth(pretrained / "metrics.jsonl")
    assert len(rows) == 2
    assert rows_of(records(place), "epoch") == rows


@pytest.mark.slow
def test_the_demo_read_back_is_the_truth(
    python: Client, home: Path, records: Callable[[Path], list[dict[str, Any]]]
) -> None:
    for stage, step, many in (("pretrain", "epoch", 8), ("finetune", "episode", 64)):
        run = home / entry(python, stage, "experiment=demo", "output_root=demo", *WANDB)
        (place,) = offline_runs(run)
        rows = truth(run / "metrics.jsonl")
        assert len(rows) == many
        assert [row for row in rows_of(records(place), step) if row != {step: 0}] == rows  # at 0 histograms alone


def test_a_synced_run_is_the_truth_under_its_own_id(pretrained: Path, synced: Run) -> None:
    identity = json.loads((pretrained / "wandb.json").read_text())
    assert (synced.name, synced.exit_code) == (identity["id"], 0)
    assert figures(synced, "epoch") == truth(pretrained / "metrics.jsonl")


def test_groups_by_name_and_by_sweep(synced: Run, shared: LoopbackWandb, finetuned: Path, tmp_path: Path) -> None:
    assert synced.facts["groupName"] == "first"
    assert "groupName" not in shared.run("finetune").facts
    config = load("pretrain", [*SMALL, *WANDB])
    assert start_of(config, tmp_path / "job", {}).group is None
    SweepFolder(tmp_path).begin(Manifest("pretrain", "1", (), 1, {}, {}, (), {}))
    assert start_of(config, tmp_path / "job", {}).group == tmp_path.name


def test_an_online_run_is_the_truth(shared: LoopbackWandb, finetuned: Path) -> None:
    run = shared.run("finetune")
    rows = truth(finetuned / "metrics.jsonl")
    assert len(rows) == 4
    assert figures(run, "episode") == rows
    assert run.exit_code == 0
    last = rows[-1]
    assert {name: run.summary[name] for name in last if name not in ("validation_sharpe", "episode")}.items() <= (
        run.summary.items()
    )
    summary = json.loads((finetuned / "summary.json").read_text())
    assert run.summary["result.selected_episode"] == summary["selected_episode"]
    assert json.loads((finetuned / "wandb.json").read_text())["url"].endswith(f"/{ENTITY}/desk/runs/{run.name}")


def test_config_and_provenance_arrive(shared: LoopbackWandb, finetuned: Path, pretrained: Path) -> None:
    config = {key: told["value"] for key, told in shared.run("finetune").config.items()}
    assert config["algo"]["cql"]["alpha"] == 5.0
    assert config["seed"] == 0
    record = json.loads((finetuned / "run.json").read_text())
    assert config["provenance"]["versions"] == record["versions"]
    assert config["provenance"]["parent"]["sha256"] == record["parent"]["sha256"]
    assert "path" not in config["provenance"]["parent"]
    assert "tracking" not in config


def test_each_kind_of_step_is_an_axis_of_its_own(shared: LoopbackWandb, synced: Run, finetuned: Path) -> None:
    for run, axis in ((synced, "epoch"), (shared.run("finetune"), "episode")):
        defined = run.config["_wandb"]["value"]["m"]
        names = [metric.get("1") for metric in defined]
        (every,) = [metric for metric in defined if metric.get("2") == "*"]
        assert names[every["5"] - 1] == axis
    best = max(row["validation_sharpe"] for row in run.history if "validation_sharpe" in row)
    assert run.summary["validation_sharpe"] == {"max": best}


def test_lineage_from_pretraining_to_fine_tuning(shared: LoopbackWandb, synced: Run, finetuned: Path) -> None:
    kept = {artifact.name: artifact for artifact in shared.artifacts if artifact.kind == "weights"}
    first, second = kept["pretrain-weights"], kept["finetune-weights"]
    child = shared.run("finetune")
    assert (first.run, first.used_by) == (synced.name, [child.name])
    assert (second.run, second.used_by) == (child.name, [])
    assert first.committed
    assert second.committed
    assert second.files["weights.safetensors"] == (finetuned / "weights.safetensors").read_bytes()
    parent = json.loads((finetuned / "run.json").read_text())["parent"]["sha256"]
    assert first.metadata["sha256"] == parent
    assert f"sha256-{parent[:16]}" in first.aliases


def test_every_alert_arrives_and_none_is_held_back(shared: LoopbackWandb, finetuned: Path) -> None:
    alerts = [json.loads(line) for line in (finetuned / "alerts.jsonl").read_text().splitlines()]
    assert len(alerts) >= 2
    assert [alert["text"] for alert in shared.alerts] == [f"episode {a['episode']}: {a['message']}" for a in alerts]
    assert {alert["waitDuration"] for alert in shared.alerts} == {1}
    assert {alert["severity"] for alert in shared.alerts} == {"WARN"}


def test_histograms_tables_and_figures_arrive(shared: LoopbackWandb, finetuned: Path) -> None:
    run = shared.run("finetune")
    validated = [row for row in run.history if "validation_sharpe" in row]
    shares = [name for name in validated[-1] if name.startswith("gate/")]
    assert len(shares) == 6
    assert all(validated[-1][name]["_type"] == "histogram" for name in shares)
    assert any(name.startswith("weights/actor") for name in validated[-1])
    tables = [json.loads(data) for name, data in run.files.items() if name.startswith("media/table/validation")]
    assert [row[0] for row in tables[0]["data"]] == [row["episode"] for row in validated]
    assert any(name.startswith("media/plotly/curves/") for name in run.files)


def figures(run: Run, step_name: str) -> list[dict[str, Any]]:
    """The rows that a server holds, without what the client and other media add."""
    lines = [{key: value for key, value in line.items() if not isinstance(value, dict)} for line in run.history]
    rows = rows_of([{"type": "history", "history": {"item": line}} for line in lines], step_name)
    return [row for row in rows if len(row) > 1]  # before the first figures there are histograms alone


def signed_in(server: LoopbackWandb) -> dict[str, str]:
    return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.base}


LOOP = """
begin = time.monotonic()
for step in range(1, 2001):
    tracker.log("episode", step, {"x": 0.5 + step})
loop = time.monotonic()
tracker.close()
print(json.dumps({"loop": loop - begin, "end": time.monotonic() - loop}))
end_process(0)
"""
LEAVE = "import time\nfrom finflow.tracking.sink import end_process\n"


def check_unharmed(done: "subprocess.CompletedProcess[str]", folder: Path, patience: float) -> str:
    """That the run went well, in time and with the truth whole; the warning."""
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["loop"] < 5
    assert told["end"] < patience + 5
    assert [row["episode"] for row in truth(folder / "metrics.jsonl")] == list(range(1, 2001))
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"warning: tracking.wandb: switched off for the rest of the run (not done {patience} s")
    return line


@pytest.mark.parametrize("fault", ["500", "hang"])
def test_a_server_that_fails_from_the_start_stops_and_slows_nothing(
    fault: str, python: Client, server: LoopbackWandb, tmp_path: Path
) -> None:
    server.fault = fault
    done = python("-c", LEAVE + ONLINE + LOOP, tmp_path / "run", 0, 0, 1.5, **signed_in(server))
    check_unharmed(done, tmp_path / "run", 1.5)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("fault", [pytest.param("500", marks=pytest.mark.slow), "hang"])
def test_a_server_that_fails_in_the_middle_stops_and_slows_nothing(
    fault: str, python: Client, server: LoopbackWandb, tmp_path: Path
) -> None:
    """What the client wrote down can be sent when the server is back; the end of it may be missing."""
    server.fail_when_told = fault
    wait = """
while b"true" not in urllib.request.urlopen(os.environ["WANDB_BASE_URL"] + "/fail", data=b"").read():
    time.sleep(0.05)
time.sleep(0.5)
"""
    done = python("-c", "import os, urllib.request\n" + LEAVE + ONLINE + wait + LOOP, tmp_path / "run", 0, 0, 2.5,
                  **signed_in(server))  # fmt: skip
    line = check_unharmed(done, tmp_path / "run", 2.5)
    assert len(done.stderr.splitlines()) == 2  # before it, that the parent is not on the server
    command = line.split("can be sent: ")[1].split(")")[0]
    assert command == f"wandb sync --include-online {tmp_path / 'run' / 'wandb'}/*run-*"
    server.fault = ""
    (place,) = (tmp_path / "run" / "wandb").glob("*run-*")
    assert python("-m", "wandb", "sync", "--include-online", place, **signed_in(server)).returncode == 0
    sent = figures(server.run("finetune"), "episode")
    assert len(sent) > 1000
    assert sent == truth(tmp_path / "run" / "metrics.jsonl")[: len(sent)]


def test_an_online_run_that_finds_no_server_is_kept_offline(
    python: Client, server: LoopbackWandb, tmp_path: Path, records: Callable[[Path], list[dict[str, Any]]]
) -> None:
    server.fault = "500"
    impatient = "from finflow.tracking import wandb_sink; wandb_sink.INIT_SECONDS = 1.0\n"
    done = python("-c", impatient + ONLINE + RUN, tmp_path / "run", 1, 4, 60, **signed_in(server))
    assert (done.returncode, done.stdout) == (0, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    line = done.stderr.strip()
    assert line.startswith("warning: tracking.wandb.mode=online: kept offline instead (")
    assert line.endswith(f"; send it later: wandb sync {tmp_path / 'run' / 'wandb'}/offline-run-*")
    (place,) = offline_runs(tmp_path / "run")
    assert rows_of(records(place), "episode") == truth(tmp_path / "run" / "metrics.jsonl")


def test_without_a_key_nothing_is_asked_and_the_run_is_kept_offline(
    python: Client, server: LoopbackWandb, tmp_path: Path
) -> None:
    done = python("-c", ONLINE + RUN, tmp_path / "run", 1, 4, 60, WANDB_BASE_URL=server.base)
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert "kept offline instead (no key: run `wandb login`, or set WANDB_API_KEY)" in line
    assert server.asked == []
    assert len(offline_runs(tmp_path / "run")) == 1
