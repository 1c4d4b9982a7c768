"""A log that only grows: JSON lines, each chained to the one before by its hash.

A line holds its number, what is logged, previous (hash of the line before, zeros for the first) and hash (SHA-256 of
all of these). A changed, removed or reordered line breaks the chain; a cut-off tail shows where a copy of its head
hash, which whoever appends notes down, is no longer found.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finflow.errors import AuditError
from finflow.io.files import file_lock, storage_errors, write_all

START = "0" * 64


@dataclass(frozen=True)
class HashChain:
    """The log at `path`, made with the first line.

    Attributes
    ----------
    what : one line of it, in words: "the opening"; of all of them, "the log of openings".
    fields : names of what is logged, in their order.
    """

    path: Path
    what: tuple[str, str]
    fields: tuple[str, ...]

    def append(self, values: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """Append one line; returns all that were there, and the new head.

        The whole chain is verified first. A lock keeps two processes from taking the same number; the line is written
        and fsynced before the call returns, and taken back if that fails.

        Raises
        ------
        AuditError
            If the log was tampered with; nothing is appended.
        StorageError
            If the log cannot be written.
        """
        with storage_errors(self.path, "written"), file_lock(self.path, math.inf) as (descriptor, _):
            text = self.path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            entries = self._verified(whole)
            if len(whole) < len(text):  # a write that a kill cut short: whoever wrote it never went on
                os.ftruncate(descriptor, len(whole))
            entry: dict[str, Any] = {"number": len(entries) + 1, **{name: values[name] for name in self.fields}}
            entry["previous"] = entries[-1]["hash"] if entries else START
            entry["hash"] = _hash(entry)
            try:
                write_all(descriptor, (json.dumps(entry, allow_nan=False) + "\n").encode())
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, len(whole))
                raise
        return entries, entry["hash"]

    def entries(self, noted: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """All whole lines, the chain verified; none where there is no log.

        Parameters
        ----------
        noted : head hashes that runs noted down, by run; the chain must still contain each.

        Raises
        ------
        AuditError
            If a line was changed, removed or reordered, or a noted head is gone.
        StorageError
            If the log cannot be read.
        """
        with storage_errors(self.path, "read"):
            text = self.path.read_bytes() if self.path.exists() else b""
        entries = self._verified(text[: text.rfind(b"\n") + 1])
        known = {START, *(entry["hash"] for entry in entries)}
        for run, head in (noted or {}).items():
            if head not in known:
                raise AuditError(
                    f"{self.path}: {self.what[0]} {head[:12]} that {run} noted is gone; restore the file from a copy,"
                    " or move that run away if it stems from elsewhere"
                )
        return entries

    def _verified(self, text: bytes) -> list[dict[str, Any]]:
        previous, entries = START, list[dict[str, Any]]()
        for number, line in enumerate(text.splitlines(), 1):
            try:
                entry = dict(json.loads(line))
            except (ValueError, TypeError):
                entry = {}
            whole = tuple(entry) == ("number", *self.fields, "previous", "hash") and entry["hash"] == _hash(entry)
            if not whole or entry["number"] != number or entry["previous"] != previous:
                raise AuditError(f"{self.path}:{number}: {self.what[1]} was changed; restore it from a copy")
            entries.append(entry)
            previous = entry["hash"]
        return entries


def _hash(entry: Mapping[str, Any]) -> str:
    content = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
