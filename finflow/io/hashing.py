"""SHA-256 of files and of arrays."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.io.files import storage_errors


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    with storage_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources_hash(rooms: Iterable[str]) -> str:
    """SHA-256 over the code of some of FinFlow's packages, in the order of their files' names."""
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def content_hash(arrays: Mapping[str, NDArray[Any]] | Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names; memory layout and device do not count."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        if isinstance(array, torch.Tensor):
            plain = array.detach().cpu().contiguous()
            kind, raw = str(plain.dtype), plain.reshape(-1).view(torch.uint8).numpy()  # numpy has no bfloat16
        else:
            plain = raw = np.ascontiguousarray(array)
            kind = plain.dtype.str
        digest.update(json.dumps([name, kind, list(plain.shape)]).encode())
        digest.update(raw.data)
    return digest.hexdigest()
