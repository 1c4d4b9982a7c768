"""Finds the `env.format` that reads a file by trying, so that an error can print one that works."""

from itertools import product
from pathlib import Path
from typing import get_args

from finflow.data.layouts import read_sheet
from finflow.errors import ConfigError, DataError
from finflow.schema.env import Format

_MOST = 2
"""Most formats that an error names: 03/04/2024 may be two days, and only the user knows which."""


def overrides_that_read(path: Path, form: Format) -> list[str]:
    """Overrides of `env.format` under which the whole of a file is read, those that change the least; may be none."""
    keys = ("separator", "decimal", "thousands", "date")
    choices = [get_args(Format.model_fields[key].annotation) for key in keys]
    found: list[tuple[int, str]] = []
    for values in sorted(product(*choices), key=lambda values: _changes(form, dict(zip(keys, values, strict=True)))):
        changed = {key: value for key, value in zip(keys, values, strict=True) if getattr(form, key) != value}
        if not changed or (found and len(changed) > found[0][0]):
            continue
        try:
            read_sheet(path, Format(**dict(zip(keys, values, strict=True))))
        except (ConfigError, DataError):
            continue
        found.append((len(changed), " ".join(f"env.format.{key}={value}" for key, value in changed.items())))
    return [text for _, text in found[:_MOST]]


def _changes(form: Format, values: dict[str, str]) -> int:
    return sum(getattr(form, key) != value for key, value in values.items())
