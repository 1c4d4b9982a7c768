"""Weights as one `.safetensors` file that cannot be loaded damaged.

safetensors loads a flipped bit without a word, so the file carries two hashes of its own: one of the tensors
(names, types, shapes, values) and one of the metadata. Nothing in it is ever executed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from finflow.errors import StorageError
from finflow.io.files import atomic_write, storage_errors
from finflow.io.hashing import content_hash

_KEY = "finflow"
_FORMAT = 1


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Save tensors with their metadata, atomically; the same content gives the same bytes.

    Parameters
    ----------
    tensors : by name, any shape and device. Views of one storage are saved apart.
    metadata : plain JSON data; tuples come back as lists, keys as strings.

    Returns
    -------
    SHA-256 of the file, 64 hex digits.

    Raises
    ------
    StorageError
        If the file cannot be written; no partial file is left.
    """
    plain = {
        name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in sorted(tensors)
    }
    stored = _sealed(plain, json.loads(json.dumps(metadata, allow_nan=False)))  # keys sort as the strings they become
    # One string, because the order of several would differ from run to run.
    data = save(plain, {_KEY: _canonical(stored)})
    atomic_write(path, data)
    return _sha256(data)


def load_weights(path: Path, expected_sha256: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load what `save_weights` wrote, onto the CPU.

    Parameters
    ----------
    expected_sha256 : hash that a manifest or a published record holds for this file.

    Returns
    -------
    Tensors by name, and the metadata given to `save_weights`.

    Raises
    ------
    StorageError
        Missing, not a safetensors file, cut short, not FinFlow's, or any hash that does not match.
    """
    with storage_errors(path, "read"):
        data = path.read_bytes()
    if expected_sha256 is not None and _sha256(data) != expected_sha256:
        _refuse(path, f"damaged or replaced: its SHA-256 is not the expected {expected_sha256[:16]}...")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        stored = json.loads(header["__metadata__"][_KEY])
        whole = stored == _sealed(tensors, stored["metadata"])
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _refuse(path, "damaged, cut short, or not a weights file of FinFlow", error)
    if not whole:
        _refuse(path, "damaged: its content does not match the hash saved with it")
    return tensors, stored["metadata"]


def _sealed(tensors: Mapping[str, torch.Tensor], metadata: Any) -> dict[str, Any]:
    """What is stored beside the tensors: the metadata, and hashes by which damage is found."""
    hashes = {"metadata_sha256": _sha256(_canonical(metadata).encode()), "tensors_sha256": content_hash(tensors)}
    return {"format": _FORMAT, "metadata": metadata, **hashes}


def _canonical(value: Any) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse(path: Path, reason: str, cause: Exception | None = None) -> NoReturn:
    raise StorageError(f"{path}: {reason}; use another weights file or train again") from cause
