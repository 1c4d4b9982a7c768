"""A cache of arrays under a hash of everything that shapes them; damaged files are rebuilt."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from finflow.io.files import atomic_write
from finflow.io.hashing import content_hash

Arrays = dict[str, NDArray[Any]]
_METADATA = "finflow"
"""One entry: safetensors writes several in an order that varies from run to run."""


def cached_arrays(folder: Path | None, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Arrays of `build()`, read from `folder/<key>.safetensors` where an earlier run left them there.

    Parameters
    ----------
    folder : made if missing; None builds without a cache.
    key : names the file; a hash of everything that shapes the arrays.
    build : returns numeric or boolean arrays by name.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    if folder is None:
        return build()
    path = folder / f"{key}.safetensors"
    if path.exists():
        found = _read(path, key)
        if found is not None:
            return found
        warnings.warn(f"{path}: damaged, its content does not match its hash; built anew", stacklevel=2)
    arrays = {name: np.ascontiguousarray(array) for name, array in build().items()}
    atomic_write(path, save(arrays, {_METADATA: _seal(key, arrays)}))
    return arrays


def read_cached(path: Path) -> Arrays | None:
    """Arrays of a file that `cached_arrays` wrote, its name unchanged; None where it is damaged."""
    return _read(path, path.stem)


def _read(path: Path, key: str) -> Arrays | None:
    """Arrays of a cache file, writable, or None where the file is not what was written."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays = {name: array.copy() for name, array in load(path.read_bytes()).items()}
    except (SafetensorError, OSError, ValueError, KeyError):
        return None
    return arrays if metadata.get(_METADATA) == _seal(key, arrays) else None


def _seal(key: str, arrays: Arrays) -> str:
    return json.dumps({"key": key, "sha256": content_hash(arrays)})
