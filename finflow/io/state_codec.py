"""Nested state as tensors by name and plain JSON, and back to the bit; nothing in it is ever executed.

Every object of the JSON is one of five: `{"tensor": name}`, `{"array": name}`, `{"tuple": [...]}`,
`{"map": [[key, value], ...]}` (order and whole numbers as keys survive), `{"float": "nan"}` (what JSON lacks).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def pack(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Tensors of `state` by their path in it, and the rest as plain JSON data.

    Parameters
    ----------
    state : dicts, lists and tuples, nested, of tensors, numeric or boolean arrays, numbers, text, None.
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
