"""A sweep's preset, its folder, and each of its jobs in a process of its own.

A preset is a user's file, `experiment=PATH.yaml` on the command line or a copy of it in `conf/experiment/`. It holds
the differences from the defaults: options of groups, and values.

The folder holds the manifest and the status of each job. Jobs share nothing else, and go on if another fails.

`sweep.json`           the manifest, written before the first job and never again
`<job>/`               a run folder each
`status/<job>.json`    status of the job's last attempt; `.log` has its output, `.lock` is held while it runs

Every launcher calls `run_job`, whether Hydra's own, a joblib or Ray worker or a SLURM task. It starts the program with
the job's command line, waits, and records how it ended.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import yaml

from finflow.artifacts.runs import CHECKPOINTS, SUMMARY, SWEEP, override, under
from finflow.config.compose import PRESETS, compose_stage, group_choices, parse_override, plain
from finflow.errors import ConfigError, DivergedError, FinFlowError
from finflow.io.files import atomic_json, atomic_write, file_lock, flatten, read_json, storage_errors
from finflow.schema import READS, Config, role_of
from finflow.schema.fields import Role
from finflow.sweeps.plan import Job

_ASIDE = {Role.OUTPUT, Role.SAVING, Role.COMMAND}
"""Roles of keys that a preset leaves out."""


def preset_of(config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    """The preset that changes the defaults of a stage to `config`: {"groups": {name: option}, "values": nested values}.

    The options of groups are taken from the `overrides` that made `config`, and their keys come first, so that what
    follows from these by interpolation is not written out.
    """
    stage = config.stage
    typed = {o.key_or_group: str(o.value()) for o in map(parse_override, overrides)}
    groups = {key: typed[key] for key in group_choices(stage) if key in typed and key not in PRESETS}
    given = flatten(config.model_dump())
    wanted = {k: v for k, v in given.items() if under(k, READS[stage]) and role_of(k) not in _ASIDE}
    lines = [text for text in overrides if text.startswith(("hydra.searchpath=", "plugins="))]
    lines += [f"{key}={option}" for key, option in groups.items()]
    differ = _differing(stage, lines, wanted)
    first = {key: value for key, value in differ.items() if key in typed}
    lines += [override(key, value) for key, value in first.items()]
    values: dict[str, Any] = {"plugins": config.plugins} if config.plugins else {}
    for key, value in (first | _differing(stage, lines, wanted)).items():
        *path, last = key.split(".")
        node = values
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return {"groups": groups, "values": values}


def _differing(stage: str, overrides: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Any]:
    own = flatten(plain(compose_stage(stage, overrides)))
    return {key: value for key, value in wanted.items() if key not in own or own[key] != value}


def write_preset(path: Path, preset: Mapping[str, Any], comment: Sequence[str]) -> None:
    """Write `preset_of`'s result as a preset of Hydra, `comment` above it."""
    lines = ["# @package _global_", *(f"# {line}" for line in comment)]
    defaults = [{f"override /{group}": option} for group, option in preset["groups"].items()]
    content = ({"defaults": defaults} if defaults else {}) | dict(preset["values"])
    atomic_write(path, ("\n".join(lines) + "\n" + yaml.safe_dump(content, sort_keys=False)).encode())


def expanded(overrides: Sequence[str]) -> list[str]:
    """A command line with `experiment=PATH.yaml` replaced by what stands in the file; what is typed wins over it."""
    found: list[str] = []
    own: list[str] = []
    for text in overrides:
        key, _, value = text.partition("=")
        if key == "experiment" and value.rstrip("\"'").endswith((".yaml", ".yml")):
            own += _read(text, Path(str(parse_override(text).value())))
        else:
            found.append(text)
    typed = {parse_override(text).key_or_group for text in found}
    return [*(text for text in own if text.split("=", 1)[0] not in typed), *found]


def _read(text: str, path: Path) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{text}: cannot be read ({type(error).__name__}); name a preset's file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{text}: no preset; name a file such as a sweep's best.yaml")
    if "hydra" in content:
        raise ConfigError(f"{text}: a preset that sweeps is named, not given as a file; copy it into conf/experiment/")
    groups: list[str] = []
    for entry in content.pop("defaults", None) or []:
        if not isinstance(entry, dict) or not all(str(key).startswith("override /") for key in entry):
            raise ConfigError(f"{text}: defaults: {entry}: write '- override /GROUP: OPTION'")
        groups += [f"{key.removeprefix('override /')}={option}" for key, option in entry.items()]
    return [*groups, *(override(key, value) for key, value in flatten(content).items())]


State = Literal["waiting", "running", "finished", "failed", "diverged", "killed", "interrupted"]


@dataclass(frozen=True)
class Pin:
    """Values fixed for a job when its sweep begins: `overrides` are added to its command line.

    parent, seed : hash and seed of the pretrained weights that it starts from; None where it starts from none.
    data : fingerprint of the market that it is made on, as far as it is known beforehand.
    """

    overrides: Mapping[str, Any]
    parent: str | None = None
    seed: int | None = None
    data: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Contents of a sweep; `id`, `swept` and `jobs` are those of its plan.

    command : `key=value` as typed, the launcher's left out; threads : for the numerical libraries of one job.
    settings : configuration of the first job, to notice when presets or defaults have changed since.
    pins : by job, for the whole sweep.
    """

    stage: str
    id: str
    command: tuple[str, ...]
    threads: int
    swept: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any]
    jobs: tuple[Job, ...]
    pins: Mapping[str, Pin]


@dataclass(frozen=True)
class Status:
    """Status of a job's last attempt; `reason` is empty unless it failed, the figures are None until it ended."""

    state: State
    reason: str = ""
    exit_code: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    started: str | None = None
    host: str | None = None
    pid: int | None = None


class SweepFolder:
    """Reads and writes one sweep's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run_dir(self, job: str) -> Path:
        """Run folder of a job."""
        return self.path / job

    def log(self, job: str) -> Path:
        """Output of the job's last attempt."""
        return self.path / "status" / f"{job}.log"

    @property
    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.path / SWEEP).exists()

    def begin(self, manifest: Manifest) -> None:
        """Write the manifest."""
        atomic_json(self.path / SWEEP, asdict(manifest))

    def manifest(self) -> Manifest:
        """Read the manifest; `ConfigError` where this is no sweep's folder."""
        if not self.exists:
            raise ConfigError(f"{self.path}: no sweep's folder (it has no {SWEEP}); name one made with -m")
        found = read_json(self.path / SWEEP)
        return Manifest(
            found["stage"], found["id"], tuple(found["command"]), found["threads"],
            {key: tuple(values) for key, values in found["swept"].items()}, found["settings"],
            tuple(Job(job["name"], job["values"], tuple(job["overrides"])) for job in found["jobs"]),
            {name: Pin(**pin) for name, pin in found["pins"].items()},
        )  # fmt: skip

    def record(self, job: str, status: Status) -> None:
        """Write a job's status."""
        atomic_json(self.path / "status" / f"{job}.json", asdict(status))

    def status(self, job: str) -> Status:
        """Status of a job: killed if its process is gone without a status, waiting again if its folder is gone."""
        done = (self.run_dir(job) / SUMMARY).exists()
        path = self.path / "status" / f"{job}.json"
        if not path.exists():
            return Status("finished" if done else "waiting")
        status = Status(**read_json(path))
        if status.state == "running":
            with self.lock(job) as free:
                if free is None:
                    return status
            status = replace(status, state="killed", reason="its process is gone")
        if done:
            return replace(status, state="finished", reason="", exit_code=0)
        return Status("waiting") if status.state == "finished" else status  # its folder was removed

    @contextlib.contextmanager
    def lock(self, job: str, patience: float = 0.0) -> Generator[int | None]:
        """Hold a job: the lock's descriptor, for a child to share, or None where another process holds it.

        patience : seconds to wait for a process that only checks the lock, as `status` does.
        """
        with file_lock(self.path / "status" / f"{job}.lock", patience) as (descriptor, held):
            yield descriptor if held else None


PARENT = "FINFLOW_SWEEP_PARENT"
"""Environment variable with the id of the process that waits for a job."""
PATIENCE = 30.0
"""Seconds that a job has to write a checkpoint after SIGTERM."""
LOCKED = 2.0
"""Seconds to wait for a job's lock, which a status check holds for an instant."""
CUT_OFF = ("running", "interrupted", "killed")
"""States that a job resumes from; a job that is `running` without holding its lock was on a machine that was lost."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class JobError(FinFlowError):
    """A job that did not finish; the other jobs of its sweep go on."""

    exit_code = 1


def run_job(path: Path, name: str, program: Sequence[str]) -> None:
    """Run the job `name` of the sweep in `path`, unless it is finished; a `JobError` has the reason of its status.

    One that was interrupted or killed goes on from its newest checkpoint, which gives the same bits as an attempt
    without a break; one that failed or diverged begins anew. `program` starts the entry point, as `program_of` gives.
    """
    folder = SweepFolder(path)
    with folder.lock(name, patience=LOCKED) as held:
        if held is None:
            raise JobError(f"{folder.run_dir(name)}: another process is at this job; wait for it")
        before = folder.status(name).state
        if before == "finished":
            return
        place = folder.run_dir(name)
        resume = ["resume=true"] if before in CUT_OFF and any((place / CHECKPOINTS).glob("*")) else []
        if not resume:
            with storage_errors(place, "removed"):
                shutil.rmtree(place, ignore_errors=not place.exists())
        status = _attempt(folder, name, [*program, *resume], held)
    if status.state != "finished":
        raise JobError(f"{name}: {status.state}: {status.reason}")


def _attempt(folder: SweepFolder, name: str, program: Sequence[str], held: int) -> Status:
    manifest = folder.manifest()
    job = next(job for job in manifest.jobs if job.name == name)
    pin = manifest.pins.get(name)
    pinned = [] if pin is None else [override(key, value) for key, value in pin.overrides.items()]
    line = [*program, *job.overrides, *pinned, "hydra.mode=RUN", override("hydra.run.dir", folder.run_dir(name))]
    threads = dict.fromkeys(_THREADS, str(manifest.threads))
    environment = os.environ | threads | {"OMP_WAIT_POLICY": "PASSIVE", PARENT: str(os.getpid())}
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    with folder.log(name).open("wb") as log:
        child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(held,),
            start_new_session=True,  # the terminal's Ctrl-C reaches it through `_wait` alone, and once
        )  # fmt: skip
    folder.record(name, Status("running", started=started, host=socket.gethostname(), pid=child.pid))
    peak = None
    try:
        peak = _wait(child)
    finally:
        code = int(child.returncode)
        printed = folder.log(name).read_text(errors="replace")
        state, reason = outcome(code, (folder.run_dir(name) / SUMMARY).exists(), printed)
        seconds = round(time.monotonic() - begun, 2)
        status = Status(state, reason, code, seconds, peak, started, socket.gethostname(), child.pid)
        folder.record(name, status)
    return status


def outcome(code: int, done: bool, printed: str) -> tuple[State, str]:
    """State and reason of a job from its exit code (minus a signal's number), and what it printed."""
    if code == 0 and done:
        return "finished", ""
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; if nobody did that, the machine ran out of memory" if name == "SIGKILL" else ""
        return ("interrupted" if name in ("SIGINT", "SIGTERM") else "killed"), f"ended by {name}{memory}"
    if code in (130, 143):
        return "interrupted", f"ended by {signal.Signals(code - 128).name}"
    if code == 0:
        return "failed", f"ended without {SUMMARY}"
    said = [line.removeprefix("error: ") for line in printed.splitlines() if line.startswith("error: ")]
    reason = said[-1] if said else f"ended with exit code {code} and without a word"
    return ("diverged" if code == DivergedError.exit_code else "failed"), reason


def follow_parent() -> None:
    """End this job as SIGTERM would, with a checkpoint, when the process that waits for it is gone (Linux)."""
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before
        os.kill(os.getpid(), signal.SIGTERM)


def _wait(child: "subprocess.Popen[bytes]") -> float:
    """Wait for a process and return its peak memory (MB); signals to end this one are passed on to it first."""
    with _terminable():
        try:
            _, code, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(code)
        except BaseException as told:
            child.send_signal(signal.SIGINT if isinstance(told, KeyboardInterrupt) else signal.SIGTERM)
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            raise
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in kB elsewhere
    return round(used.ru_maxrss / unit, 1)


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """Within the block SIGTERM raises SystemExit(143), where signals can be handled at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
