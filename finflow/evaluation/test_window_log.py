"""The log of openings: counts how often a test window was evaluated, as a hash chain that only grows.

`test_ledger.jsonl` under `output_root` holds one JSON object a line: number, fingerprint, fold, run, when,
previous (hash of the line before, zeros for the first), hash (SHA-256 of all of these). A changed, removed or
reordered line breaks the chain; a cut-off tail shows where a run's copy of the head hash is no longer found.
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
from finflow.io.files import storage_errors, write_all
from finflow.io.lock import file_lock

FILE_NAME = "test_ledger.jsonl"
START = "0" * 64
FIELDS = ("number", "fingerprint", "fold", "run", "when", "previous", "hash")


@dataclass(frozen=True)
class Opening:
    """One opening: `count`-th of its data and fold, and the head hash of the chain after it."""

    count: int
    head: str


def record_opening(output_root: Path, fingerprint: str, fold: str, run: str, when: str) -> Opening:
    """Append one opening of a test window, before its returns are looked at.

    The whole chain is verified first. A lock keeps two evaluations from taking the same number; the line is
    written and fsynced before the call returns, and taken back if that fails.

    Parameters
    ----------
    output_root : folder of the log, made if missing.
    fingerprint, fold : of the data and the split; openings are counted by both.
    run, when : which run's policy was judged, and the time as text.

    Raises
    ------
    AuditError
        If the log was tampered with; nothing is appended.
    StorageError
        If the log cannot be written.
    """
    path = Path(output_root) / FILE_NAME
    with storage_errors(path, "written"), file_lock(path, math.inf) as (descriptor, _):
        text = _read(descriptor)
        whole = text[: text.rfind(b"\n") + 1]
        entries = _verified(path, whole)
        if len(whole) < len(text):  # a line cut short by a kill, before any return was read
            os.ftruncate(descriptor, len(whole))
        entry: dict[str, Any] = {"number": len(entries) + 1, "fingerprint": fingerprint, "fold": fold, "run": run}
        entry |= {"when": when, "previous": entries[-1]["hash"] if entries else START}
        entry["hash"] = _hash(entry)
        try:
            write_all(descriptor, (json.dumps(entry) + "\n").encode())
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, len(whole))
            raise
    same = [e for e in entries if (e["fingerprint"], e["fold"]) == (fingerprint, fold)]
    return Opening(len(same) + 1, entry["hash"])


def verify_openings(output_root: Path, noted: Mapping[str, str] | None = None) -> int:
    """Check the chain and return how many openings it holds; a missing log holds none.

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
    path = Path(output_root) / FILE_NAME
    entries = _entries(path)
    known = {START, *(entry["hash"] for entry in entries)}
    for run, head in (noted or {}).items():
        if head not in known:
            raise AuditError(
                f"{path}: the opening {head[:12]} that {run} noted is gone; restore the file from a copy,"
                " or move that run away if it stems from elsewhere"
            )
    return len(entries)


def count_openings(output_root: Path, fingerprint: str, fold: str) -> int:
    """How often the window of these data and this fold has been opened; none is added.

    Raises
    ------
    AuditError, StorageError
        As `verify_openings`.
    """
    entries = _entries(Path(output_root) / FILE_NAME)
    return sum((entry["fingerprint"], entry["fold"]) == (fingerprint, fold) for entry in entries)


def _entries(path: Path) -> list[dict[str, Any]]:
    """Whole lines of the log, verified; a missing log has none."""
    text = b""
    if path.exists():
        with storage_errors(path, "read"):
            text = path.read_bytes()
    return _verified(path, text[: text.rfind(b"\n") + 1])


def _verified(path: Path, text: bytes) -> list[dict[str, Any]]:
    previous, entries = START, list[dict[str, Any]]()
    for number, line in enumerate(text.splitlines(), 1):
        entry = _parsed(line)
        if tuple(entry) != FIELDS or (entry["number"], entry["previous"], entry["hash"]) != (
            number,
            previous,
            _hash(entry),
        ):
            raise AuditError(f"{path}:{number}: the log of test-window openings was changed; restore it from a copy")
        entries.append(entry)
        previous = entry["hash"]
    return entries


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _hash(entry: dict[str, Any]) -> str:
    content = {name: entry[name] for name in FIELDS[:-1]}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read(descriptor: int) -> bytes:
    parts: list[bytes] = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)
