"""The W&B workspace: what its panels show is what runs log, and a loopback server is sent it."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from finflow.allocators.priors import EXPERTS
from finflow.config.compose import load
from finflow.errors import ConfigError
from finflow.schema.sections import BCellConfig
from finflow.stages import dashboard as stage
from finflow.tracking.dashboard import TUNED, Place, as_json, build

from .conftest import KEY, ROOT, Client, truth
from .wandb_server import ENTITY, LoopbackWandb

SECTIONS = ["Training health", "Risk and return against 1/N", "Gate and experts", "Alerts", "Sweep comparison"]


@pytest.fixture
def server() -> Iterator[LoopbackWandb]:
    loopback = LoopbackWandb()
    yield loopback
    loopback.close()


def make(python: Client, out: Path, *args: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return python(ROOT / "experiments" / "dashboard.py", f"output_root={out}", *args, **variables)


def written(out: Path) -> dict[str, Any]:
    return json.loads((out / "dashboard" / "workspace.json").read_text())


def sections(spec: Mapping[str, Any]) -> list[str]:
    return [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]


def panels(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]


def shown(panel: Mapping[str, Any]) -> set[str]:
    """Figures that a panel shows, and `config:KEY` for settings."""
    config = panel["config"]
    columns = [column["accessor"] for column in config.get("columns", [])]
    single = [config[key] for key in ("xAxis", "yAxis", "targetKey") if isinstance(config.get(key), str)]
    return {name.removeprefix("summary:") for name in [*config.get("metrics", []), *columns, *single]}


def test_every_panel_shows_what_runs_log(logged: dict[str, set[str]]) -> None:
    """By phase: a chart against epochs shows figures of phase 1, one against episodes those of phase 2."""
    spec = as_json(build(Place(None, "desk")))
    assert sections(spec) == SECTIONS
    assert len(panels(spec)) > 30
    for panel in panels(spec):
        names = {name.removesuffix(".max") for name in shown(panel) if not name.startswith("config:")}
        step = panel["config"].get("xAxis")
        known = logged[step] if step in logged else logged["epoch"] & logged["episode"]
        assert names <= known, panel["config"]
    assert any("alerts" in json.dumps(panel) for panel in panels(spec) if panel["viewType"] == "Weave")


@pytest.fixture(scope="module")
def logged(trained: dict[str, Path]) -> dict[str, set[str]]:
    """Names of what real runs log, by the step that they count."""
    rows = {step: truth(folder / "metrics.jsonl") for step, folder in trained.items()}
    return {step: {key for row in found for key in row} | {f"gate/{name}" for name in EXPERTS}
            for step, found in rows.items()}  # fmt: skip


def test_it_compares_settings_that_there_are() -> None:
    algo = load("finetune", []).algo
    assert isinstance(algo, BCellConfig)
    leaves = algo.model_dump() | {f"cql.{key}": value for key, value in algo.cql.model_dump().items()}
    assert {key.removeprefix("algo.") for key in TUNED} <= leaves.keys()


def test_offline_its_json_is_written_and_nothing_asked(python: Client, server: LoopbackWandb, tmp_path: Path) -> None:
    done = make(python, tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=server.base)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert server.asked == []
    told = written(tmp_path)
    assert (told["project"], told["entity"], told["view"], told["url"]) == ("finflow", None, None, None)
    assert sections(told["spec"]) == SECTIONS
    assert done.stdout.splitlines() == [
        f"Workspace: {tmp_path}/dashboard/workspace.json",
        f"Run folder: {tmp_path}/dashboard",
        "Next: python experiments/dashboard.py tracking.wandb.mode=online",
    ]


def test_online_the_server_is_sent_it_and_the_next_time_it_takes_its_place(
    python: Client, server: LoopbackWandb, tmp_path: Path
) -> None:
    for _ in range(2):
        done = make(python, tmp_path, "tracking.wandb.mode=online", "tracking.wandb.project=desk",
                    WANDB_API_KEY=KEY, WANDB_BASE_URL=server.base)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == (ENTITY, "desk", "FinFlow")
    told = written(tmp_path)
    assert sections(view["spec"]) == SECTIONS
    assert [panel["config"] for panel in panels(view["spec"])] == [panel["config"] for panel in panels(told["spec"])]
    assert told["view"] == {"id": view["id"], "name": view["name"]}
    assert f"Saved: {told['url']}" in done.stdout
    assert f"/{ENTITY}/desk?nw=" in told["url"]
    assert server.unknown == []
    again = stage._before(tmp_path / "dashboard" / "workspace.json", load("dashboard", []).tracking.wandb)
    assert again == (Place(None, "finflow"), None)  # of another project it is another workspace


@pytest.mark.parametrize("fault", ["500", "hang"])
def test_a_server_that_does_not_take_it_is_one_line_and_the_json_is_there(
    fault: str, python: Client, server: LoopbackWandb, tmp_path: Path
) -> None:
    server.fault = fault
    done = make(python, tmp_path, "tracking.wandb.mode=online", "tracking.close_timeout=1.5",
                WANDB_API_KEY=KEY, WANDB_BASE_URL=server.base)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: tracking.wandb.mode=online: the workspace is not saved (")
    assert sections(written(tmp_path)["spec"]) == SECTIONS


def test_without_a_key_or_settings_it_is_refused(python: Client, server: LoopbackWandb, tmp_path: Path) -> None:
    done = make(python, tmp_path, "tracking.wandb.mode=online", WANDB_BASE_URL=server.base)
    assert (done.returncode, done.stdout) == (2, "")
    assert not list(tmp_path.iterdir())
    assert done.stderr == "error: tracking.wandb.mode=online: no key: run `wandb login`, or set WANDB_API_KEY\n"
    with pytest.raises(ConfigError, match="tracking: has no W&B settings; write tracking=wandb"):
        stage.dashboard(load("dashboard", ["tracking=local"]), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(ConfigError, match=r"pip install -c constraints.txt -e '\.\[dashboard\]'"):
        stage.dashboard(load("dashboard", []), tmp_path / "none")
    assert not (tmp_path / "none").exists()
