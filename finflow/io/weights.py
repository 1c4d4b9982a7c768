"""Tensors and arrays on disk without pickle: weights, nested state, a cache of arrays, and their hashes.

safetensors loads a flipped bit without a word, so a weights file carries two hashes of its own: one of the tensors
(names, types, shapes, values) and one of the metadata. Nothing in it is ever executed.

Nested state is tensors by name and plain JSON, and comes back to the bit. Every object of the JSON is one of five:
`{"tensor": name}`, `{"array": name}`, `{"tuple": [...]}`, `{"map": [[key, value], ...]}` (order and whole numbers as
keys survive), `{"float": "nan"}` (what JSON lacks).
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save
from torch import Tensor

from finflow.errors import StorageError
from finflow.io.files import atomic_write, storage_errors


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
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


def pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Tensors of `state` by their path in it, and the rest as plain JSON data.

    It is dicts, lists and tuples, nested, of tensors, numeric or boolean arrays, numbers, text, None.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(state, "", tensors)


def unpack(tensors: Mapping[str, Tensor], plain: Any) -> Any:
    """Inverse of `pack`."""
    if isinstance(plain, list):
        return [unpack(tensors, part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "tuple":
        return tuple(unpack(tensors, part) for part in content)
    if kind == "map":
        return {key: unpack(tensors, part) for key, part in content}
    if kind == "float":
        return float(content)
    raise ValueError(f"{kind!r} is no kind of state")


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        array = isinstance(value, np.ndarray)
        # 0 dimensions must survive, which `ascontiguousarray` would turn into 1.
        tensors[path] = torch.from_numpy(np.array(value, order="C")) if array else value
        return {"array" if array else "tensor": path}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str | int) for key in value):
            raise TypeError(f"{path}: a key that is neither text nor a whole number")
        return {"map": [[key, _pack(part, f"{path}/{key}", tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_pack(part, f"{path}/{i}", tensors) for i, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: {type(value).__name__} cannot be kept in a checkpoint")


_KEY = "finflow"
"""The one entry of the metadata: safetensors writes several in an order that varies from run to run."""
_FORMAT = 1


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Save tensors with their metadata, atomically; the same content gives the same bytes.

    Returns its SHA-256, 64 hex digits.

    Parameters
    ----------
    tensors : by name, any shape and device. Views of one storage are saved apart.
    metadata : plain JSON data; tuples come back as lists, keys as strings.

    Raises
    ------
    StorageError
        If the file cannot be written; no partial file is left.
    """
    plain = {
        name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in sorted(tensors)
    }
    stored = _sealed(plain, json.loads(json.dumps(metadata, allow_nan=False)))  # keys sort as the strings they become
    data = save(plain, {_KEY: _canonical(stored)})
    atomic_write(path, data)
    return _sha256(data)


def load_weights(path: Path, expected_sha256: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load what `save_weights` wrote, onto the CPU: tensors by name, and metadata.

    `expected_sha256` is the hash that a manifest or a published record holds for this file.

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


Arrays = dict[str, NDArray[Any]]


def cached_arrays(folder: Path | None, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Arrays of `build()`, read from `folder/<key>.safetensors` where an earlier run left them there.

    Parameters
    ----------
    folder : made if missing; None builds without a cache.
    key : a hash of everything that shapes the arrays.
    """
    if folder is None:
        return build()
    path = folder / f"{key}.safetensors"
    if path.exists():
        found = read_cached(path)
        if found is not None:
            return found
        warnings.warn(f"{path}: damaged, its content does not match its hash; built anew", stacklevel=2)
    arrays = {name: np.ascontiguousarray(array) for name, array in build().items()}
    atomic_write(path, save_arrays(arrays, {_KEY: _entry(key, arrays)}))
    return arrays


def read_cached(path: Path) -> Arrays | None:
    """Arrays of a file that `cached_arrays` wrote, its name unchanged, writable; None where it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays = {name: array.copy() for name, array in load_arrays(path.read_bytes()).items()}
    except (SafetensorError, OSError, ValueError, KeyError):
        return None
    return arrays if metadata.get(_KEY) == _entry(path.stem, arrays) else None


def _entry(key: str, arrays: Arrays) -> str:
    return json.dumps({"key": key, "sha256": content_hash(arrays)})
