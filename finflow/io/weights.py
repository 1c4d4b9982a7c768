"""Weights as one `.safetensors` file that cannot be loaded damaged.

safetensors loads a flipped bit without a word, so the file carries two hashes of its own: one of the tensors
(names, types, shapes, values) and one of the metadata. Nothing in it is ever executed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from finflow.errors import StorageError
from finflow.io.files import atomic_write, storage_errors
from finflow.io.hashing import content_hash

_KEY = "finflow"
_FORMAT = 1
_FIELDS = {"format", "metadata", "metadata_sha256", "tensors_sha256"}
_MAX_HEADER = 16 << 20


class _Header(NamedTuple):
    """Where the tensors lie in the file, and the JSON text that FinFlow put beside them."""

    size: int
    data_size: int
    text: str


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
    meta = json.loads(json.dumps(metadata, allow_nan=False))  # so that keys sort as the strings they become
    stored = {
        "format": _FORMAT,
        "metadata": meta,
        "metadata_sha256": _sha256(_canonical(meta).encode()),
        "tensors_sha256": content_hash(plain),
    }
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
    with storage_errors(path, "read"), path.open("rb") as file:
        header = _read_header(path, file)
        file.seek(0)
        data = file.read(header.size + header.data_size)
    if expected_sha256 is not None and _sha256(data) != expected_sha256:
        _refuse(path, f"damaged or replaced: its SHA-256 is not the expected {expected_sha256[:16]}...")
    metadata, tensors_sha256 = _open_text(path, header.text)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).split("\n")[0]
        _refuse(path, f"damaged: {first}", error)
    if content_hash(tensors) != tensors_sha256:
        _refuse(path, "damaged: the tensors do not match the hash saved with them")
    return tensors, metadata


def _read_header(path: Path, file: BinaryIO) -> _Header:
    """Check a file's frame before its tensors are read: a hostile header must cost neither memory nor time."""
    total = os.fstat(file.fileno()).st_size
    start = file.read(9)
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:9] != b"{"):
        _refuse(path, "not a safetensors file but a pickle or archive, which FinFlow never opens")
    if len(start) < 9:
        _refuse(path, f"cut short: {total} bytes")
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{":
        _refuse(path, "not a safetensors file")
    if length > _MAX_HEADER:
        _refuse(path, f"not a weights file of FinFlow: it claims a header of {length} bytes")
    if 8 + length > total:
        _refuse(path, f"cut short: {total} of at least {8 + length} bytes")
    try:
        header: dict[str, Any] = json.loads(b"{" + file.read(length - 1))
        text = header.pop("__metadata__", {}).get(_KEY)
        size = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        _refuse(path, "damaged or not a safetensors file: its header cannot be read", error)
    if not isinstance(text, str):
        _refuse(path, "a safetensors file, but not of FinFlow: it has no FinFlow metadata")
    if 8 + length + size != total:
        _refuse(path, f"cut short or damaged: {total} bytes where the header says {8 + length + size}")
    return _Header(8 + length, size, text)


def _open_text(path: Path, text: str) -> tuple[dict[str, Any], str]:
    """Metadata and tensor hash from the stored JSON text, which must be as `save_weights` writes it, to the byte."""
    try:
        stored = json.loads(text)
        intact = isinstance(stored, dict) and _canonical(stored) == text
    except (ValueError, RecursionError) as error:
        _refuse(path, "damaged: its metadata cannot be read", error)
    if not intact:
        _refuse(path, "damaged: its metadata is not as FinFlow writes it")
    if stored.get("format") != _FORMAT:
        _refuse(path, f"weights of format {stored.get('format')!r}, this version of FinFlow reads format {_FORMAT}")
    if set(stored) != _FIELDS or _sha256(_canonical(stored["metadata"]).encode()) != stored["metadata_sha256"]:
        _refuse(path, "damaged: its metadata does not match the hash saved with it")
    return stored["metadata"], stored["tensors_sha256"]


def _canonical(value: Any) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse(path: Path, reason: str, cause: Exception | None = None) -> NoReturn:
    raise StorageError(f"{path}: {reason}; use another weights file or train again") from cause
