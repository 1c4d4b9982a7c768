"""The W&B workspace of a project: always a JSON file, and saved on the server where tracking is online."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finflow.errors import ConfigError
from finflow.io.files import atomic_json, read_json
from finflow.schema import Config
from finflow.schema.sections import Wandb
from finflow.tracking.dashboard import Place, as_json, build, require_key, save

FILE = "workspace.json"


@dataclass(frozen=True)
class DashboardResult:
    """Where the JSON is, and the address of the workspace if it was saved."""

    run_dir: Path
    file: Path
    url: str | None
    next_command: str


def dashboard(config: Config, run_dir: Path | None = None) -> DashboardResult:
    """Write `workspace.json`; online, save the workspace as well, over the one that the file says was saved before.

    Raises
    ------
    ConfigError
        If `tracking` has no W&B settings, there is no key, or `wandb-workspaces` is missing.
    DataError
        If the server refuses it or does not answer; the file is written all the same.
    StorageError
        If the file cannot be written, or is damaged.
    """
    wandb = config.tracking.wandb
    if wandb is None:
        raise ConfigError("tracking: has no W&B settings; write tracking=wandb, or leave it out")
    if wandb.mode == "online":
        require_key()
    folder = run_dir or Path(config.output_root) / config.stage
    file = folder / FILE
    place, url = _before(file, wandb)
    spec = as_json(build(place))
    _write(file, place, url, spec)
    if wandb.mode == "online":
        place, url = save(place, config.tracking.close_timeout)
        _write(file, place, url, spec)
    following = "dashboard.py" if url is None else "finetune.py tracking=wandb"
    return DashboardResult(folder, file, url, f"python experiments/{following} tracking.wandb.mode=online")


def _before(file: Path, wandb: Wandb) -> tuple[Place, str | None]:
    """Where the workspace was saved last, if that was for the same entity and project."""
    known: dict[str, Any] = read_json(file) if file.exists() else {}
    if known.get("project") == wandb.project and wandb.entity in (None, known.get("entity")) and known.get("view"):
        return Place(known["entity"], wandb.project, (known["view"]["id"], known["view"]["name"])), known["url"]
    return Place(wandb.entity, wandb.project), None


def _write(file: Path, place: Place, url: str | None, spec: dict[str, Any]) -> None:
    view = None if place.view is None else {"id": place.view[0], "name": place.view[1]}
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_json(file, {"entity": place.entity, "project": place.project, "url": url, "view": view, "spec": spec})
