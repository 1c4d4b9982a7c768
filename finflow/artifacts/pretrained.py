"""Pretrained weights: published by phase 1, found and checked by phase 2; never a silent random start.

What a parent was made of is a plain dict of facts, kept in the metadata of its weights:
`data_fingerprint`, `feature_spec`, `network`, `fold`, `budget` (the key of a match), and `algo`, `seed`,
`env` (the rules behind the fingerprint, to name what differs), `train`, `validation`, `test` (first and last date
of each window). Weights are published by key and seed, so that the jobs of a sweep do not replace each other's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finflow.artifacts.names import SUMMARY, WEIGHTS
from finflow.artifacts.provenance import now, read_summary
from finflow.config import digest
from finflow.data.benchmark import series_files
from finflow.errors import ParentError, StorageError
from finflow.io.files import atomic_json, read_json
from finflow.io.flatten import flatten
from finflow.io.hashing import sha256_of
from finflow.io.weights import load_weights
from finflow.schema import Config, part_of
from finflow.schema.env import Env
from finflow.schema.roles import MATCHED, Role

FACTS = "facts"
KEY = ("data_fingerprint", "feature_spec", "network", "fold", "budget")
FIT = ("feature_spec", "network")
"""What any parent must share; data, fold and budget may differ where the user names the weights."""

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
    published: dict[Path, str] = {}
    for path in _folder(output_root).glob(f"{_key(wanted)}*.json"):
        try:
            published[path] = str(read_json(path).get("published"))
        except StorageError:
            continue  # of another seed: one that is whole will do
    if not published:
        raise ParentError(_why_not(_folder(output_root), wanted))
    return max(published, key=lambda path: (published[path], path.name))


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


def _why_not(folder: Path, wanted: Mapping[str, Any]) -> str:
    """Which fields keep the nearest published weights from matching; of equally near ones the newest."""
    best: tuple[int, str, list[tuple[str, Any, Any]]] | None = None
    for path in folder.glob("*.json"):
        try:
            record = read_json(path)
        except StorageError:
            continue  # a damaged record of other weights must not hide the reason
        facts = record.get(FACTS)
        if not isinstance(facts, dict):
            continue
        differing = _named_differences(wanted, facts)
        candidate = (-len(differing), str(record.get("published")), differing)
        if best is None or candidate[:2] > best[:2]:
            best = candidate
    if best is None:
        return f"nothing is published under {folder}"
    return "no pretrained weights with " + _listing(f"{n}={o!r} (nearest has {t!r})" for n, o, t in best[2])


def _named_differences(wanted: Mapping[str, Any], facts: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Differences of the key; where other rules made other data, the rules instead of the fingerprint."""
    differing = _differences(_chosen(wanted, KEY), _chosen(facts, KEY))
    rules = _differences(_chosen(wanted, ("env",)), _chosen(facts, ("env",))) if "env" in facts else []
    if rules and differing and differing[0][0] == KEY[0]:
        return rules + differing[1:]
    return differing


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
    differing = _differences(_chosen(wanted, FIT), _chosen(facts, FIT))
    if differing:
        shown = _listing(f"{name}={theirs!r} where this run has {ours!r}" for name, ours, theirs in differing)
        raise ParentError(f"does not fit: {shown}; make these equal")
    # Learnt from the first, chosen by the second: neither may reach into what this run is judged by, or beyond.
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
    """What shapes a market beside its files, which have no place in weights: their paths differ between machines."""
    in_files = {key.removeprefix("env."): "file" for key in series_files(env)}
    return part_of(env.model_dump(), MATCHED - {Role.FILE}, "env") | in_files


def _key(facts: Mapping[str, Any]) -> str:
    return digest(_chosen(facts, KEY))


def _chosen(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts.get(name) for name in names}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted name and both values of every leaf that differs; None where one side lacks it."""
    left, right = flatten(ours, lists=True), flatten(theirs, lists=True)
    names = [*left, *(name for name in right if name not in left)]
    found = [(name, left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)]
    if any(name == "network.kind" for name, _, _ in found):  # one kind knows its assets by name, the other does not
        found = [one for one in found if not one[0].startswith("feature_spec.assets.")]
    return found


def _listing(items: Iterable[str]) -> str:
    shown = list(items)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
