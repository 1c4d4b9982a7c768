"""Weights & Biases: its client, silent and without prompts, offline unless the settings say online; and the sink.

Only this file imports the library. The client works through a process of its own, `wandb-core`, and waits for it
without limit when Python exits. To give up a run, that process must be ended; there is no public function for it.
"""

import contextlib
import netrc
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from finflow.io.files import atomic_json, flatten, read_json, read_lines
from finflow.io.weights import sha256_of
from finflow.schema.sections import Wandb
from finflow.tracking.sink import ALERTS, METRICS, RunOutcome, Sink, Start, warn

INIT_SECONDS = 30.0
"""Longest that a server may take to answer the first request."""


def load() -> Any:
    """The module `wandb`, imported with its telemetry off."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))  # otherwise it prints the source of its key
    return wandb


def settings(wandb: Any, mode: str) -> Any:
    """Settings of a run; the client does not collect what FinFlow records itself."""
    return wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=INIT_SECONDS,
    )


def has_key(wandb: Any) -> bool:
    """Whether the client has a key; without one it would prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(str(wandb.setup().settings.base_url)).hostname
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return host is not None and netrc.netrc(path).authenticators(host) is not None
    return False


def end_service() -> None:
    """End `wandb-core` and forget it: nothing waits for it when Python exits, and another run begins with a new one."""
    from wandb.sdk import wandb_setup

    threading.excepthook = _without_its_own(threading.excepthook)
    with contextlib.suppress(AttributeError, OSError):  # another version of the client may hold it elsewhere
        setup: Any = wandb_setup.singleton()
        connection, setup._connection = setup._connection, None
        connection._cleanup()
        connection._proc._process.kill()
        os.environ.pop("WANDB_SERVICE", None)  # where it listened


def _without_its_own(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`hook` without the errors that the client's threads raise when their process is gone."""

    def call(told: Any) -> None:
        if told.thread is None or not told.thread.name.startswith("wandb"):
            hook(told)

    return call


IDENTITY = "wandb.json"
"""File in the run folder with the run's id, project and entity on W&B; a resumed run keeps its id."""
BEST = ("validation_sharpe", "validation_active_information_ratio")
"""Figures whose highest value stands in the summary beside the last."""

NO_WAIT = 0.001
"""Seconds between two alerts of a run."""


class WandbSink(Sink):
    """One W&B run in `run_dir/wandb`; offline unless the settings say online.

    Rows are logged under the names of `metrics.jsonl`, step for step, undefined figures left out. Where the server
    cannot be reached the run is kept offline, to be sent by `wandb sync`.
    """

    def __init__(self, settings: Wandb, run_dir: Path) -> None:
        self._settings, self._run_dir = settings, run_dir
        self._wandb = load()
        self._run: Any = None
        self._step_names: set[str] = set()
        self._last = 0
        self._abandoned = False

    def begin(self, start: Start) -> None:
        """Begin the run, or go on with the one that was interrupted here."""
        identity = self._run_dir / IDENTITY
        known = read_json(identity) if identity.exists() else {"id": uuid.uuid4().hex[:12]}
        record = {key: value for key, value in start.record.items() if key != "parent"}
        parent = {key: value for key, value in (start.record.get("parent") or {}).items() if key != "path"}
        options = {
            "dir": str(self._run_dir),
            "project": self._settings.project,
            "entity": self._settings.entity,
            "id": known["id"],
            "name": f"{start.name} {self._run_dir.name}",
            "group": self._settings.group or start.group,
            "job_type": start.stage,
            "tags": list(self._settings.tags),
            "config": {**start.settings, "provenance": {**record, "parent": parent or None}},
            "resume": "allow",
        }
        self._run = self._open(options)
        online = self._run.settings.mode == "online"
        place = {"id": self._run.id, "project": self._run.project, "entity": self._run.entity or None}
        atomic_json(identity, {**place, "group": options["group"], "url": self._run.url if online else None})
        if online and parent:
            self._descend(str(parent["sha256"]))

    def _open(self, options: Mapping[str, Any]) -> Any:
        """The run, online if configured and possible."""
        wandb = self._wandb
        if self._settings.mode == "online":
            reason = "no key: run `wandb login`, or set WANDB_API_KEY"
            if has_key(wandb):
                try:
                    return wandb.init(**options, settings=settings(wandb, "online"))
                except wandb.Error as error:
                    if self._abandoned:
                        raise
                    reason = " ".join(str(error).split())
                    end_service()  # it keeps retrying, and refuses another run of this id
            later = f"wandb sync {self._run_dir / 'wandb'}/offline-run-*"
            warn(f"tracking.wandb.mode=online: kept offline instead ({reason}); send it later: {later}")
        return wandb.init(**options, settings=settings(wandb, "offline"))

    def _descend(self, sha256: str) -> None:
        """Name the pretrained weights as an input of this run; offline only `run.json` names them."""
        name = f"{artifact_name('pretrain', 'weights')}:{alias(sha256)}"
        try:
            self._run.use_artifact(name)
        except (self._wandb.Error, ValueError, TypeError) as error:
            if self._abandoned:
                raise
            reason = " ".join(str(error).split())
            warn(f"tracking.wandb: {name} is not on the server ({reason}); the lineage stands in run.json")

    def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
        """Log the defined figures."""
        if step_name not in self._step_names:
            self._step_names.add(step_name)
            self._run.define_metric(step_name)
            self._run.define_metric("*", step_metric=step_name)
            for name in BEST:
                self._run.define_metric(name, step_metric=step_name, summary="max")
        self._put(step, {step_name: step, **{name: value for name, value in row.items() if value is not None}})

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Log the finite values as a histogram, in the row of the same step."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._put(step, {name: self._wandb.Histogram(np_histogram=np.histogram(finite, bins=64))})

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Alert: by mail or chat, where the account asks for that."""
        text = f"{step_name} {step}: {message}"
        # Without a wait the client drops alerts of the same title for a minute.
        self._run.alert(title=f"FinFlow: {self._run.name}"[:64], text=text, level="WARN", wait_duration=NO_WAIT)

    def finish(self, outcome: RunOutcome) -> None:
        """Add summary, figures and files, and tables of the whole run's validations and alerts, read from its files."""
        wandb = self._wandb
        shown: dict[str, Any] = {}
        rows = read_lines(self._run_dir / METRICS)
        validations = [row for row in rows if any(name.startswith("validation_") for name in row)]
        for name, rows in (("validation", validations), ("alerts", read_lines(self._run_dir / ALERTS))):
            if rows:
                columns = list(dict.fromkeys(key for row in rows for key in row))
                shown[name] = wandb.Table(columns=columns, data=[[row.get(key) for key in columns] for row in rows])
        self._put(self._last, {**shown, **{name: wandb.Plotly(made) for name, made in outcome.figures().items()}})
        self._run.summary.update({f"result.{key}": value for key, value in flatten(outcome.summary).items()})
        for kind, path in outcome.files.items():
            sha256 = sha256_of(path)
            artifact = wandb.Artifact(
                artifact_name(self._run.job_type, kind), type=kind, metadata={"sha256": sha256, "run": self._run.id}
            )
            artifact.add_file(str(path), policy="immutable", skip_cache=True)  # it stays where it is, uncopied
            self._run.log_artifact(artifact, aliases=["latest", alias(sha256)])

    def close(self, *, failed: bool) -> None:
        """End the run, once everything is written or sent."""
        self._run.finish(exit_code=1 if failed else 0)

    def abandon(self) -> None:
        """End the client's process; what it has written stays, for `wandb sync`."""
        self._abandoned = True
        end_service()

    def remains(self) -> str:
        """How to send what the client wrote."""
        sync = "wandb sync --include-online"
        return "" if self._run is None else f"what it holds can be sent: {sync} {self._run_dir / 'wandb'}/*run-*"

    def _put(self, step: int, values: Mapping[str, Any]) -> None:
        self._last = max(self._last, step)
        self._run.log(dict(values), step=step)


def artifact_name(stage: str, kind: str) -> str:
    """Name of the artifact that holds what runs of `stage` make; each file is a version of it."""
    return f"{stage}-{kind}"


def alias(sha256: str) -> str:
    """Alias of the version with this content."""
    return f"sha256-{sha256[:16]}"
