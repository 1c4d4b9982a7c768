"""Pretrained weights: published by phase 1, found and checked by phase 2; never a silent random start.

What a parent was made of is a plain dict of facts, kept in the metadata of its weights:
`data_fingerprint`, `feature_spec`, `network`, `fold`, `budget` (the key of a match), and `algo`, `seed`,
`env` (the rules behind the fingerprint, to name what differs), `train`, `validation`, `test` (first and last date
of each window). Weights are published by key and seed, so that the jobs of a sweep do not replace each other's.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finflow.artifacts.names import SUMMARY, WEIGHTS
from finflow.artifacts.provenance import now, read_summary
from finflow.data.series import series_files
from finflow.errors import ParentError, StorageError
from finflow.io.files import atomic_json, flatten, read_json
from finflow.io.weights import load_weights, sha256_of
from finflow.schema import Config, part_of
from finflow.schema.env import Env
from finflow.schema.fields import digest
from finflow.schema.roles import MATCHED, Role

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
    weights : the file.
    sha256 : of the file, checked.
    facts : what it was made of.
    tensors : by name, on the CPU.
    metadata : all of the file's metadata, the facts included.
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

    Parameters
    ----------
    feature_spec : what the networks' inputs mean, for example the names of all features.
    dates : of the fold, as `data.folds.fold_dates` gives them.
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
    """Make saved weights what `init.weights=latest` finds; the file is read back first.

    Returns
    -------
    The record, `output_root/pretrain/latest/<key>-s<seed>.json`; an older one of the same key and seed is replaced.

    Raises
    ------
    StorageError
        If the weights are not what was saved, or the record cannot be written.
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
        path, expected = _published(output_root, _latest(output_root, wanted)) if latest else _named(weights)
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


def _latest(output_root: str | Path, wanted: Mapping[str, Any]) -> Path:
    """Record published under the key of `wanted`: of its own seed, else the newest of any."""
    own = _record_of(output_root, wanted)
    if own.exists():
        return own
    found = _records(_folder(output_root), f"{_key(wanted)}*.json")
    if found:
        return found[-1][0]
    others = _records(_folder(output_root), "*.json")
    if not others:
        raise ParentError(f"nothing is published under {_folder(output_root)}")
    facts = others[-1][1][FACTS]
    rules = ("env", *KEY[1:])  # which made other data, rather than its fingerprint
    differing = _differences(wanted, facts, rules) or _differences(wanted, facts, KEY[:1])
    shown = _listing(f"{name}={ours!r} (newest has {theirs!r})" for name, ours, theirs in differing)
    raise ParentError(f"no pretrained weights with {shown}")


def _records(folder: Path, pattern: str) -> list[tuple[Path, dict[str, Any]]]:
    """Published records by time, the newest last; a damaged one, of other weights, is left out."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for path in folder.glob(pattern):
        with contextlib.suppress(StorageError):
            found.append((path, read_json(path)))
    return sorted(found, key=lambda one: (str(one[1].get("published")), one[0].name))


def _published(output_root: str | Path, path: Path) -> tuple[Path, str]:
    """Weights file and hash that a published record holds."""
    record = read_json(path)
    stored, sha256 = record.get("weights"), record.get("sha256")
    if not isinstance(stored, str) or not isinstance(sha256, str):
        raise StorageError(f"{path}: damaged (no weights or hash in it); remove it and pretrain again")
    weights = Path(output_root) / stored
    if not weights.exists():
        raise ParentError(f"{weights} is published but gone")
    return weights, sha256


def _named(weights: str) -> tuple[Path, str | None]:
    """Weights file of an explicit path, with the hash that its run's summary holds, if any."""
    path = Path(weights)
    if path.is_dir():
        if not (path / SUMMARY).exists() or not (path / WEIGHTS).exists():
            raise ParentError(f"not a finished training run (it needs {SUMMARY} and {WEIGHTS}); name another")
        expected = read_summary(path).get("weights_sha256")
        return path / WEIGHTS, expected if isinstance(expected, str) else None
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
    return digest(_chosen(facts, KEY))


def _chosen(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts.get(name) for name in names}


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], names: tuple[str, ...]
) -> list[tuple[str, Any, Any]]:
    """Dotted name and both values of every leaf of the facts `names` that differs; None where one side lacks it."""
    left, right = (flatten(_chosen(facts, names), lists=True) for facts in (ours, theirs))
    keys = [*left, *(key for key in right if key not in left)]
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _listing(items: Iterable[str]) -> str:
    shown = list(items)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
