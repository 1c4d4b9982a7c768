"""An evaluation as one file, so that its page can be made again without the test window being opened again."""

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from finflow.errors import StorageError
from finflow.evaluation.result import Evaluation, Track
from finflow.evaluation.study import Study
from finflow.io.weights import load_weights, pack, save_weights, unpack

STORED = "evaluation.safetensors"
"""Its name in the folder of an evaluation."""
Record = TypeVar("Record")


@dataclass(frozen=True)
class Stored:
    """What was found: the page's evaluation, those of single folds where several were stitched, and the study."""

    evaluation: Evaluation
    folds: tuple[Evaluation, ...]
    study: Study | None


def store(path: Path, found: Stored) -> None:
    """Write `found` to `path`, whole or not at all.

    Of the baselines only the verdict's 1/N keeps its weights, which the page shows; the others' have no columns.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    slim = Stored(_slim(found.evaluation), tuple(_slim(fold) for fold in found.folds), found.study)
    tensors, plain = pack(_days_as_numbers(asdict(slim)))
    save_weights(path, tensors, {"stored": plain})


def read_stored(path: Path) -> Stored:
    """What `store` wrote, to the bit.

    Raises
    ------
    StorageError
        If the file is missing or damaged, or was written by a version with other records.
    """
    tensors, metadata = load_weights(path)
    try:
        return _built(Stored, unpack(tensors, metadata["stored"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: not an evaluation of this version ({error}); evaluate again") from error


def _slim(evaluation: Evaluation) -> Evaluation:
    shown = evaluation.verdict.opponent
    baselines = {k: t if k == shown else _without_weights(t) for k, t in evaluation.baselines.items()}
    return replace(evaluation, baselines=baselines)


def _without_weights(track: Track) -> Track:
    none = np.zeros((len(track.net), 0))
    return replace(track, weights=none, drifted=none)


def _days_as_numbers(value: Any) -> Any:
    """The same with dates as whole days, since tensors have no dates."""
    if isinstance(value, Mapping):
        return {key: _days_as_numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_days_as_numbers(part) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return value.astype("datetime64[D]").astype(np.int64)
    return value


def _built(hint: Any, value: Any) -> Any:
    """`value` as `hint` says: dictionaries become the records that they were."""
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        if set(value) != set(hints):
            raise TypeError(f"fields {', '.join(sorted(set(value) ^ set(hints)))} differ")
        return hint(**{name: _built(hints[name], part) for name, part in value.items()})  # pyright: ignore[reportCallIssue]
    if hint == NDArray[np.datetime64]:
        return value.astype("datetime64[D]")
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _built(next(arg for arg in args if arg is not types.NoneType), value)
    if origin is dict:
        return {key: _built(args[1], part) for key, part in value.items()}
    if origin is list:
        return [_built(args[0], part) for part in value]
    if origin is tuple:
        each = args[:1] * len(value) if args[-1] is Ellipsis else args
        return tuple(_built(arg, part) for arg, part in zip(each, value, strict=True))
    return value
