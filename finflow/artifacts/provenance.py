"""Provenance of a run: `config.yaml`, `run.json`, and the `summary.json` that marks it as finished.

Clocks, hosts and paths stand in `run.json` alone, so that two runs of one seed agree in every other file.
"""

import contextlib
import os
import platform
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from finflow.artifacts.names import CONFIG, RUN, SUMMARY
from finflow.config.compose import run_folder
from finflow.config.files import to_yaml
from finflow.data.market import CALENDAR, Market
from finflow.io.files import atomic_json, atomic_write, read_json, storage_errors
from finflow.plugins import code_of
from finflow.schema import Config

_PACKAGES = ("finflow", "torch", "numpy", "safetensors", "pandas", "skfolio", "hydra-core", "gymnasium")
_CHECKOUT = Path(__file__).resolve().parents[2]


class Stopwatch:
    """Wall-clock seconds of each named phase of a run; a phase entered twice adds up, one within another pauses it."""

    def __init__(self) -> None:
        self.started = now()
        self.seconds: dict[str, float] = {}
        self._running, self._counted = list[str](), 0.0

    @contextlib.contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Count the block's seconds under `name`, also where it raises; those of phases within it are their own."""
        self._count()
        self._running.append(name)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def rounded(self) -> dict[str, float]:
        """Seconds by phase, in the order in which they were entered, to the millisecond."""
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}

    def _count(self) -> None:
        since, self._counted = self._counted, time.perf_counter()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + self._counted - since


def now() -> str:
    """This moment in UTC, ISO 8601 with microseconds: as text it sorts as time does."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def made_folder(config: Config, run_dir: Path | None) -> Path:
    """`run_dir`, else a new folder under the output root, named by stage, name, time and seed.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    folder = run_dir or Path(run_folder(config.output_root, config.stage, config.name, config.seed))
    with storage_errors(folder, "made"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_record(
    config: Config,
    market: Market,
    dates: Mapping[str, Any],
    parent: Mapping[str, Any] | None,
    stopwatch: Stopwatch,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Content of `run.json` of a run that is not finished; without git or a package its version is null.

    Parameters
    ----------
    dates : of the fold, as `data.folds.fold_dates` gives them.
    parent : `Parent.record()` of the weights that the run started from, or None.
    facts : more plain data of the stage, for example how often the test window was opened.
    """
    return {
        "stage": config.stage,
        "name": config.name,
        "seed": config.seed,
        "data_fingerprint": market.fingerprint,
        "fold": dict(dates),
        "parent": None if parent is None else dict(parent),
        CALENDAR: market.calendar.facts(),
        **facts,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "platform": {"system": platform.platform(), "host": socket.gethostname(), "cores": os.cpu_count()},
        "plugins": code_of(config.plugins),
        "git": git_state(_CHECKOUT),
        "started": stopwatch.started,
        "finished": None,
        "seconds": stopwatch.rounded(),
    }


def finish_run(
    folder: Path,
    config: Config,
    record: Mapping[str, Any],
    stopwatch: Stopwatch,
    summary: Mapping[str, Any] | None,
) -> None:
    """End of every stage: `config.yaml`, `run.json` with the time of the end, and last `summary.json`.

    Parameters
    ----------
    record : of `run_record`.
    summary : see `write_summary`; None for a run that no later stage may take for a finished one.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    write_config(folder, config)
    write_run(folder, {**record, "finished": now(), "seconds": stopwatch.rounded()})
    if summary is not None:
        write_summary(folder, {"stage": config.stage, **summary})


def write_run(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`; a run writes it at its start and again at its end.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    atomic_json(run_dir / RUN, dict(record))


def write_config(run_dir: Path, config: Config) -> None:
    """Write `config.yaml` once; one that is there stays as it is.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    path = run_dir / CONFIG
    if not path.exists():
        atomic_write(path, to_yaml(config).encode())


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, the last file of a run: its presence means done.

    Parameters
    ----------
    summary : what the seed determines: no times, hosts or paths. Undefined figures are None.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    ValueError
        If a float is not finite.
    """
    atomic_json(run_dir / SUMMARY, dict(summary))


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Summary of a finished run.

    Raises
    ------
    StorageError
        If the run has none, or it is damaged.
    """
    return read_json(run_dir / SUMMARY)


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout whose top is `folder`, and whether it has changes; None where there is none.

    An installed package may lie inside someone else's repository, whose commit would say nothing about it.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        return None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": bool(changes) if changes is not None else None}


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook, GIT_DIR and its kin point at the hook's repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
