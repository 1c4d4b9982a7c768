"""Provenance of a run, and the pretrained weights that it starts from: published by phase 1, found by phase 2.

`config.yaml`, `run.json`, and the `summary.json` that marks a run as finished. Clocks, hosts and paths stand in
`run.json` alone, so that two runs of one seed agree in every other file.

Phase 2 checks what it finds; it never starts silently from random weights. What a parent was made of is kept in the
metadata of its weights (`parent_facts`). Weights are published by key (`KEY`) and seed, so that the jobs of a sweep do
not replace each other's.
"""

import contextlib
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from finflow.artifacts.runs import CONFIG, RUN, SUMMARY, WEIGHTS
from finflow.config.compose import run_folder, to_yaml
from finflow.data.market import CALENDAR, Market
from finflow.data.series import series_files
from finflow.errors import ParentError, StorageError
from finflow.io.files import atomic_json, atomic_write, flatten, read_json, storage_errors
from finflow.io.weights import load_weights, sha256_of
from finflow.plugins import code_of
from finflow.schema import Config, part_of
from finflow.schema.fields import MATCHED, Role, digest
from finflow.schema.sections import Env

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
        """Count the block's seconds under `name`, also where it raises."""
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
    """`run_dir`, else a new folder under the output root, named by stage, name, time and seed."""
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

    `parent` is `Parent.record()` of the weights that the run started from; `facts` are more plain data of the stage.
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
    summary : what the seed determines, undefined figures None: no times, hosts or paths. Without it no later stage
        takes the run for a finished one.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    ValueError
        If a figure is not finite.
    """
    write_config(folder, config)
    atomic_json(folder / RUN, {**record, "finished": now(), "seconds": stopwatch.rounded()})
    if summary is not None:
        atomic_json(folder / SUMMARY, {"stage": config.stage, **summary})


def write_config(run_dir: Path, config: Config) -> None:
    """Write `config.yaml` once; one that is there stays as it is."""
    path = run_dir / CONFIG
    if not path.exists():
        atomic_write(path, to_yaml(config).encode())


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


FACTS = "facts"
KEY = ("data_fingerprint", "network", "fold", "budget", "feature_spec")
FIT = ("network", "feature_spec")
"""Facts that any pretrained weights must share; data, fold and budget may differ where the user names the weights."""

_NEEDED = {*KEY, "train", "validation", "test"}
_PRETRAIN = "python experiments/pretrain.py"
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Parent:
    """Weights that were found, checked and loaded.

    Attributes
    ----------
    sha256 : of the file, checked.
    facts : what it was made of; metadata holds them too.
    stand_in : whether `latest` had to take another seed's, since none of the run's own are published.
    """

    weights: Path
    sha256: str
    facts: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    stand_in: bool

    def record(self, output_root: str | Path) -> dict[str, Any]:
        """What `run.json` says of the parent; it holds paths, so `summary.json` takes only the hash."""
        paths = {"weights": _stored(output_root, self.weights), "path": str(self.weights.resolve())}
        return {**paths, "sha256": self.sha256, FACTS: dict(self.facts)}


def parent_facts(
    config: Config, market_fingerprint: str, feature_spec: Mapping[str, Any], dates: Mapping[str, Any]
) -> dict[str, Any]:
    """Facts of weights that `config` makes in phase 1, or wants in phase 2.

    `feature_spec` says what the networks' inputs mean; `dates` of the fold are those of `data.market.fold_dates`.
    """
    return {
        "data_fingerprint": market_fingerprint,
        "feature_spec": dict(feature_spec),
        "network": part_of(config.algo.network.model_dump(), MATCHED, "algo.network"),
        "fold": dates["name"],
        "budget": part_of(config.budget.model_dump(), MATCHED, "budget"),
        "env": _rules(config.env),
        "algo": config.algo.name,
        "seed": config.seed,
        **{window: list(dates[window]) for window in ("train", "validation", "test")},
    }


def publish_parent(output_root: str | Path, weights: Path, sha256: str, facts: Mapping[str, Any]) -> Path:
    """Make saved weights what `init.weights=latest` finds; returns the record of it.

    That is `output_root/pretrain/latest/<key>-s<seed>.json`; an older one of the same key and seed is replaced.

    Raises
    ------
    StorageError
        If the weights, which are read back first, are not what was saved, or the record cannot be written.
    """
    if sha256_of(weights) != sha256:
        raise StorageError(f"{weights}: not what was saved (its SHA-256 differs); check the disk and train again")
    record = _record_of(output_root, facts)
    content = {"weights": _stored(output_root, weights), "sha256": sha256, "published": now(), FACTS: dict(facts)}
    atomic_json(record, content)
    return record


def find_parent(
    output_root: str | Path, weights: str, wanted: Mapping[str, Any], command: Callable[[], str] = lambda: _PRETRAIN
) -> Parent:
    """Find, check and load the weights that a run starts from.

    Parameters
    ----------
    weights : `latest`, or the path of a run folder or `.safetensors` file.
    wanted : facts that this run would want of its parent (`parent_facts`).
    command : makes the command line that would pretrain such a parent; called for a message only.

    Raises
    ------
    ParentError
        Nothing published, nothing that matches or fits, or trained on days that this run is judged by; one
        line that names the fields and the remedy.
    StorageError
        If the weights are damaged or their hash does not match.
    """
    latest = weights == "latest"
    try:
        path, expected = _latest(output_root, wanted) if latest else _named(weights)
        sha256 = sha256_of(path) if expected is None else expected
        tensors, metadata = load_weights(path, sha256)
        facts = _fitting(path, metadata.get(FACTS), wanted)
    except ParentError as error:
        raise ParentError(f"init.weights={weights}: {error}; run: {command()}") from None
    return Parent(path, sha256, facts, tensors, metadata, latest and facts.get("seed") != wanted["seed"])


def weights_of(record: Mapping[str, Any], output_root: str | Path) -> Path:
    """Weights file that a `Parent.record` names, wherever it is read from and although `output_root` was moved."""
    inside = Path(output_root) / str(record["weights"])
    return inside if inside.exists() else Path(str(record.get("path", record["weights"])))


def _latest(output_root: str | Path, wanted: Mapping[str, Any]) -> tuple[Path, str]:
    """Weights file and hash published under the key of `wanted`: of its own seed, else the newest of any."""
    own, folder = _record_of(output_root, wanted), _folder(output_root)
    found = [read_json(own)] if own.exists() else _records(folder, f"{_key(wanted)}*.json")
    if found:
        weights = Path(output_root) / found[-1]["weights"]
        if not weights.exists():
            raise ParentError(f"{weights} is published but gone")
        return weights, found[-1]["sha256"]
    others = _records(folder, "*.json")
    if not others:
        raise ParentError(f"nothing is published under {folder}")
    facts = others[-1][FACTS]
    rules = ("env", *KEY[1:])  # which made other data, rather than its fingerprint
    differing = _differences(wanted, facts, rules) or _differences(wanted, facts, KEY[:1])
    shown = _listing(f"{name}={ours!r} (newest has {theirs!r})" for name, ours, theirs in differing)
    raise ParentError(f"no pretrained weights with {shown}")


def _records(folder: Path, pattern: str) -> list[dict[str, Any]]:
    """Published records by time, the newest last; a damaged one, of other weights, is left out."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for path in folder.glob(pattern):
        with contextlib.suppress(StorageError):
            record = read_json(path)
            found.append((str(record.get("published")), path.name, record))
    return [record for *_, record in sorted(found, key=lambda one: one[:2])]


def _named(weights: str) -> tuple[Path, str | None]:
    """Weights file of an explicit path, with the hash that its run's summary holds, if any."""
    path = Path(weights)
    if path.is_dir():
        if not (path / SUMMARY).exists() or not (path / WEIGHTS).exists():
            raise ParentError(f"not a finished training run (it needs {SUMMARY} and {WEIGHTS}); name another")
        return path / WEIGHTS, read_json(path / SUMMARY).get("weights_sha256")
    if not path.exists():
        raise ParentError("no such run folder or weights file; name another")
    return path, None


def _fitting(path: Path, facts: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of loaded weights, if the networks fit and this run is judged by days that they never saw."""
    if not isinstance(facts, dict) or not set(facts) >= _NEEDED:
        raise ParentError(f"{path} does not say what it was trained on; use other weights")
    differing = _differences(wanted, facts, FIT)
    if differing:
        shown = _listing(f"{name}={theirs!r} where this run has {ours!r}" for name, ours, theirs in differing)
        raise ParentError(f"does not fit: {shown}; make these equal")
    # Train days taught the weights, validation days chose them: neither may reach days that this run is judged by.
    for theirs, ours in (("train", "validation"), ("train", "test"), ("validation", "test")):
        end, start = str(facts[theirs][1]), str(wanted[ours][0])
        if end >= start:
            reason = f"its {theirs} window ends {end}, this run's {ours} starts {start}"
            raise ParentError(f"{reason}; use weights that end before it, or a later fold")
    return facts


def _folder(output_root: str | Path) -> Path:
    return Path(output_root) / "pretrain" / "latest"


def _record_of(output_root: str | Path, facts: Mapping[str, Any]) -> Path:
    return _folder(output_root) / f"{_key(facts)}-s{facts.get('seed')}.json"


def _stored(output_root: str | Path, weights: Path) -> str:
    """Path relative to `output_root`, so that the whole can be moved; absolute where the file lies elsewhere."""
    root, whole = Path(output_root).resolve(), weights.resolve()
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()


def _rules(env: Env) -> dict[str, Any]:
    """Settings that shape a market. Paths of files are left out of weights, since they differ between machines."""
    in_files = {key.removeprefix("env."): "file" for key in series_files(env)}
    return part_of(env.model_dump(), MATCHED - {Role.FILE}, "env") | in_files


def _key(facts: Mapping[str, Any]) -> str:
    return digest({name: facts.get(name) for name in KEY})


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], names: tuple[str, ...]
) -> list[tuple[str, Any, Any]]:
    """Dotted name and both values of every leaf of the facts `names` that differs; None where one side lacks it."""
    left, right = (flatten({name: facts.get(name) for name in names}, lists=True) for facts in (ours, theirs))
    keys = [*left, *(key for key in right if key not in left)]
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _listing(items: Iterable[str]) -> str:
    shown = list(items)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
