"""The folder of a sweep: its manifest and the status of each job. Jobs share nothing else.

`sweep.json`           the manifest, written before the first job and never again
`<job>/`               a run folder each
`status/<job>.json`    status of the job's last attempt; `.log` has its output, `.lock` is held while it runs
"""

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from finflow.artifacts.runs import SUMMARY, SWEEP
from finflow.errors import ConfigError, StorageError
from finflow.io.files import atomic_json, atomic_write, file_lock, read_json
from finflow.sweeps.plan import Job

MANIFEST = SWEEP
ELSEWHERE = "sweeps.txt"
"""Under `output_root`: folders of sweeps that were begun elsewhere, one per line."""
State = Literal["waiting", "running", "finished", "failed", "diverged", "killed", "interrupted"]


@dataclass(frozen=True)
class Pin:
    """Values fixed for a job when its sweep begins.

    Attributes
    ----------
    overrides : key -> value, added to its command line.
    parent, seed : hash and seed of the pretrained weights that it starts from; None where it starts from none.
    data : fingerprint of the market that it is made on, as far as it is known beforehand.
    """

    overrides: Mapping[str, Any]
    parent: str | None = None
    seed: int | None = None
    data: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Contents of a sweep.

    Attributes
    ----------
    stage, id : of the sweep; `id` is that of its command line.
    command : `key=value` as typed, the launcher's left out.
    threads : for the numerical libraries of one job.
    swept : key -> its values, as typed.
    settings : configuration of the first job, to notice when presets or defaults have changed since.
    jobs : all of them.
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
        return (self.path / MANIFEST).exists()

    def require(self) -> None:
        """Raise a `ConfigError` where no sweep was begun here."""
        if not self.exists:
            raise ConfigError(f"{self.path}: no sweep's folder (it has no {MANIFEST}); name one made with -m")

    def begin(self, manifest: Manifest) -> None:
        """Write the manifest."""
        atomic_json(self.path / MANIFEST, asdict(manifest))

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises
        ------
        ConfigError
            If this is no sweep's folder.
        StorageError
            If the manifest is damaged.
        """
        self.require()
        found = read_json(self.path / MANIFEST)
        try:
            jobs = tuple(Job(j["name"], j["values"], tuple(j["overrides"])) for j in found["jobs"])
            return Manifest(
                found["stage"], found["id"], tuple(found["command"]), found["threads"],
                {key: tuple(values) for key, values in found["swept"].items()}, found["settings"], jobs,
                {name: Pin(**pin) for name, pin in found["pins"].items()},
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path / MANIFEST}: damaged ({error}); restore it from a copy") from error

    def record(self, job: str, status: Status) -> None:
        """Write a job's status."""
        atomic_json(self.path / "status" / f"{job}.json", asdict(status))

    def status(self, job: str) -> Status:
        """Status of a job: killed if its process is gone without a status, waiting again if its folder is gone."""
        done = (self.run_dir(job) / SUMMARY).exists()
        path = self.path / "status" / f"{job}.json"
        if not path.exists():
            return Status("finished" if done else "waiting")
        try:
            status = Status(**read_json(path))
        except TypeError as error:
            remedy = "remove it: the run folder says whether the job is finished"
            raise StorageError(f"{path}: damaged ({error}); {remedy}") from error
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


def known_sweeps(output_root: str | Path) -> list[Path]:
    """Manifests of the sweeps under `output_root`, and of those elsewhere that `remember` noted and that are there."""
    root = Path(output_root)
    noted = root / ELSEWHERE
    elsewhere = noted.read_text().splitlines() if noted.exists() else []
    return [*root.glob(f"*/*/sweep-*/{MANIFEST}"), *(p for p in (Path(x) / MANIFEST for x in elsewhere) if p.exists())]


def remember(output_root: str | Path, folder: Path) -> None:
    """Note a sweep that was begun in a folder of its own, so that `latest` finds it."""
    if folder / MANIFEST not in known_sweeps(output_root):
        path = Path(output_root) / ELSEWHERE
        before = path.read_text() if path.exists() else ""
        atomic_write(path, f"{before}{folder.resolve()}\n".encode())
