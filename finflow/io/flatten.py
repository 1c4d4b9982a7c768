"""Nested plain data by dotted keys."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "", *, lists: bool = False) -> dict[str, Any]:
    """Leaves of nested mappings by dotted key, in their order; an empty mapping has none.

    Parameters
    ----------
    prefix : put before every key, its dot included.
    lists : whether lists and tuples are nested as well, their places as keys; else they are leaves.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = dict(enumerate(value)) if lists and isinstance(value, list | tuple) else value
        found |= (
            flatten(inner, f"{prefix}{key}.", lists=lists) if isinstance(inner, Mapping) else {f"{prefix}{key}": inner}
        )
    return found
