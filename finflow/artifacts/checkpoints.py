"""Checkpoints of a run, written atomically, listed with their hashes, removed by a fixed rule; and its policy's file.

`checkpoints/<number>-<unit>-<progress>.safetensors` in the run folder, and `manifest.json` beside them, itself under
a hash. A number is never used twice, so no listed file is ever written over. A file is removed
only after the one that follows it has been read back: the last `keep`, the best and the newest stay.

A trained policy is one file: networks, feature scaling, and the facts of their training.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finflow.agents.base import Scales
from finflow.artifacts.runs import CHECKPOINTS
from finflow.data.features import FeatureScaling
from finflow.envs.ledger import RewardModel
from finflow.errors import ConfigError, StorageError
from finflow.io.files import atomic_write, read_json, storage_errors
from finflow.io.weights import load_weights, pack, save_weights, sha256_of, unpack
from finflow.nn.networks import Networks, ObservationSpec, build_networks
from finflow.schema.fields import digest
from finflow.schema.sections import Network

FOLDER, MANIFEST = CHECKPOINTS, "manifest.json"
_NAME = re.compile(r"(\d{5,})-[a-z]+-\d+\.safetensors", re.ASCII)
_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One listed checkpoint; `best` marks the best so far at the time it was saved."""

    name: str
    sha256: str
    best: bool


@dataclass(frozen=True, eq=False)
class Found:
    """A checkpoint that was read and is whole; `refused` says why newer ones were not taken, newest first."""

    path: Path
    state: Any = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)
    refused: tuple[str, ...] = ()


def retained(entries: Sequence[Entry], keep: int) -> list[Entry]:
    """Which of `entries`, oldest first, stay: the last `keep` of them and the best, which is the last so marked."""
    best = next((entry for entry in reversed(entries) if entry.best), None)
    return [entry for i, entry in enumerate(entries) if i >= len(entries) - max(keep, 1) or entry is best]


class Checkpoints:
    """Saves and finds the checkpoints of one run folder, whose lock the caller holds; see `retained` for `keep`."""

    def __init__(self, run_dir: Path, keep: int) -> None:
        self.run_dir, self.folder, self.keep = run_dir, run_dir / FOLDER, keep
        self._entries: list[Entry] = []

    def save(self, unit: str, progress: int, state: Any, facts: Mapping[str, Any], *, best: bool = False) -> Path:
        """Save `state`, read it back, list it, and remove what is no longer kept.

        Parameters
        ----------
        unit, progress : how far the run is, for the file's name, for example "episode", 100.
        facts : plain JSON data to keep with it.

        Raises
        ------
        StorageError
            If it cannot be written or was not written right; what was there before stays as it was.
        """
        numbers = [_number(name) for name in [*self._files(), *(entry.name for entry in self._entries)]]
        name = f"{1 + max(numbers, default=0):05d}-{unit}-{progress}.safetensors"
        path = self.folder / name
        tensors, plain = pack(state)
        metadata = {"best": best, "facts": dict(facts), "state": plain}
        try:
            sha256 = save_weights(path, tensors, metadata)
            if sha256_of(path) != sha256:
                raise StorageError(f"{path}: not what was written; check the disk")
            entries = retained([*self._entries, Entry(name, sha256, best)], self.keep)
            sealed = _sealed([asdict(entry) for entry in entries])
            atomic_write(self.folder / MANIFEST, (json.dumps(sealed, indent=2) + "\n").encode())
        except BaseException:
            with contextlib.suppress(OSError, StorageError):
                # Where the folder's fsync failed after the rename, the manifest lists it already.
                if all(entry.name != name for entry in self._read_manifest() or ()):
                    path.unlink(missing_ok=True)
            raise
        self._entries = entries
        listed = {entry.name for entry in entries}
        for old in self._files():
            if old not in listed:
                with storage_errors(self.folder / old, "removed"):
                    (self.folder / old).unlink(missing_ok=True)
        return path

    def newest(self, accept: Callable[[Mapping[str, Any]], str | None] = lambda _: None) -> Found | None:
        """Newest checkpoint that is whole and accepted, or None where none was ever saved.

        Parameters
        ----------
        accept : facts -> None, or why the run cannot go on from there, for example since `metrics.jsonl` is cut.

        Raises
        ------
        StorageError
            If there are checkpoints, but none to go on from.
        """
        refused: list[str] = []
        for entry in self._listed(refused):
            try:
                found = self._read(entry)
                reason = accept(found.facts)
            except StorageError as error:
                found, reason = None, str(error)
            if found is not None and reason is None:
                return Found(found.path, found.state, found.facts, tuple(refused))
            refused.append(reason or "")
        if refused:
            raise StorageError(f"{refused[0]}; and no valid checkpoint before it: start a new run")
        return None

    def named(self, path: Path) -> Found:
        """The checkpoint at `path`, inside this run's folder.

        Raises
        ------
        ConfigError
            If it is not listed.
        StorageError
            If it leads elsewhere, or is not what is listed under its name.
        """
        entries = {entry.name: entry for entry in self._listed([])}
        if path.name not in entries:
            raise ConfigError(f"resume={path}: no checkpoint that {MANIFEST} lists; name another, or write resume=true")
        return self._read(entries[path.name])

    def go_on_from(self, found: Found) -> None:
        """Forget what is newer than `found`; the next save removes those files."""
        entries = list(self._listed([]))
        newer = [entry.name for entry in entries].index(found.path.name)
        self._entries = entries[newer:][::-1]

    def _listed(self, refused: list[str]) -> Iterator[Entry]:
        """Entries, newest first; without a valid manifest, those of files whose own hash is right."""
        try:
            entries = self._read_manifest()
        except StorageError as error:
            refused.append(str(error))
            entries = None
        names = self._files()
        if entries is None and names and not refused:
            refused.append(f"{self.folder / MANIFEST}: missing")
        if entries is not None:
            yield from reversed(entries)
            return
        for name in sorted(names, key=_number, reverse=True):
            path = self.folder / name
            try:
                _, metadata = load_weights(path)
                yield Entry(name, sha256_of(path), metadata.get("best") is True)
            except StorageError as error:
                refused.append(str(error))

    def _read(self, entry: Entry) -> Found:
        path = self.folder / entry.name
        whole = path.resolve()
        if whole.parent != self.run_dir.resolve() / FOLDER or not _NAME.fullmatch(whole.name):
            raise StorageError(f"{path}: leads out of its run folder, to {whole}; name a checkpoint of the run itself")
        tensors, metadata = load_weights(path, entry.sha256)
        return Found(path, unpack(tensors, metadata["state"]), metadata["facts"])

    def _read_manifest(self) -> list[Entry] | None:
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        content = read_json(path)
        listed: Any = content.get("checkpoints")
        if content != _sealed(listed):
            raise StorageError(f"{path}: damaged (its content does not match its hash)")
        return [Entry(**entry) for entry in listed]

    def _files(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        with storage_errors(self.folder, "read"):
            return [name for name in os.listdir(self.folder) if _NAME.fullmatch(name)]


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _sealed(listed: Any) -> dict[str, Any]:
    content = {"format": _FORMAT, "checkpoints": listed}
    return {**content, "sha256": digest(content)}


_SCALING = "scaling."
_NETWORKS = "networks."


@dataclass(frozen=True)
class StoredPolicy:
    """What a weights file holds beside the networks: scaling, reward, spec, shape, scales of CQL.

    confidence : evidence behind the part of the tilt that is deployed, its `kappa` (`evaluation.confidence`).
    """

    networks: Mapping[str, Tensor]
    scaling: FeatureScaling
    reward: RewardModel
    spec: ObservationSpec
    shape: Network
    scales: Scales | None
    reward_facts: Mapping[str, Any]
    confidence: Mapping[str, Any] | None

    def build(self, device: torch.device) -> Networks:
        """Networks with these weights, to the bit, as they are deployed: at their confidence."""
        networks = build_networks(self.spec, self.shape, 0, device)
        networks.load_state_dict(self.networks, strict=True)
        if self.confidence is not None:
            networks.actor.confidence = float(self.confidence["kappa"])
        return networks


def to_tensors(networks: Mapping[str, Tensor], scaling: FeatureScaling) -> dict[str, Tensor]:
    """Tensors of a weights file."""
    stored = {f"{_NETWORKS}{name}": tensor.detach().cpu() for name, tensor in networks.items()}
    return stored | {f"{_SCALING}{name}": torch.from_numpy(array) for name, array in scaling.to_arrays().items()}


def to_metadata(
    spec: ObservationSpec,
    shape: Network,
    reward_facts: Mapping[str, Any],
    scales: Scales | None,
    confidence: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Metadata of a weights file, beside the facts that a parent is matched by."""
    return {
        "spec": spec.to_dict(),
        "shape": shape.model_dump(),
        "reward_facts": dict(reward_facts),
        "scales": None if scales is None else list(scales),
        "confidence": None if confidence is None else dict(confidence),
    }


def read_policy(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> StoredPolicy:
    """Inverse of `to_tensors` and `to_metadata`; a `StorageError` if something that belongs to a policy is missing."""
    try:
        arrays = {k.removeprefix(_SCALING): v.numpy() for k, v in tensors.items() if k.startswith(_SCALING)}
        scales, confidence = metadata["scales"], metadata["confidence"]
        return StoredPolicy(
            networks={k.removeprefix(_NETWORKS): v for k, v in tensors.items() if k.startswith(_NETWORKS)},
            scaling=FeatureScaling.from_arrays(arrays),
            reward=RewardModel(**metadata["reward_facts"]["reward"]),
            spec=ObservationSpec(**{key: tuple(value) for key, value in metadata["spec"].items()}),
            shape=Network(**metadata["shape"]),
            scales=None if scales is None else Scales(float(scales[0]), float(scales[1])),
            reward_facts=metadata["reward_facts"],
            confidence=confidence,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"weights: not a policy of FinFlow ({error}); train it again") from error
