"""Files: atomic writes, storage failures in one line, locks that end with their holder, nested data by key."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import secrets
import socket
import time
from collections.abc import Generator, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from finflow.errors import LockedError, StorageError

_TEMPORARY = ".tmp-"
_REASONS = {
    errno.ENOSPC: ("disk full", "free some space"),
    errno.EDQUOT: ("disk quota used up", "free some space"),
    errno.EROFS: ("file system is read-only", "choose another folder with output_root=DIR"),
    errno.EACCES: ("permission denied", "choose another folder with output_root=DIR"),
    errno.EPERM: ("permission denied", "choose another folder with output_root=DIR"),
    errno.ENOTDIR: ("a part of the path is no folder", "choose another folder with output_root=DIR"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EISDIR: ("is a folder", "name a file"),
    errno.ELOOP: ("is a link", "put the file itself there"),
    errno.EFBIG: ("larger than files may be here", "raise the limit (ulimit -f)"),
    errno.ENAMETOOLONG: ("name too long", "choose a shorter name or folder"),
}


@contextlib.contextmanager
def storage_errors(path: Path, verb: str) -> Generator[None]:
    """Turn an `OSError` within the block into a `StorageError`: one line with `path`, reason and remedy.

    `verb` is what was tried, "written" or "read".
    """
    try:
        yield
    except OSError as error:
        unknown = ((error.strerror or type(error).__name__).lower(), "check the disk and try again")
        reason, remedy = _REASONS.get(error.errno or 0, unknown)
        raise StorageError(f"{path}: cannot be {verb}: {reason}; {remedy}") from error


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either what it held before or all of `data`, whatever happens.

    A new file in the same folder is written, fsynced and renamed over `path`, then the folder is fsynced: a
    rename alone may survive a power cut that its data does not. Missing folders are made. The file's mode is
    0644 less the umask.

    Raises
    ------
    StorageError
        If it cannot be written; no partial file is left.
    """
    with storage_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what writes that a kill cut short left in `folder`, which nobody else may be writing."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with storage_errors(path, "removed"):
            path.unlink(missing_ok=True)


def atomic_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, as `atomic_write` does; keys keep their order, numpy scalars become numbers.

    Raises
    ------
    ValueError
        If a float is not finite: an undefined figure is None.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    atomic_write(path, (text + "\n").encode())


def atomic_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write `csv_text` of `rows`, of which the first is the header, as `atomic_write` does."""
    atomic_write(path, csv_text(rows).encode())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as a CSV: floats with all their digits, blank where a value is None."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that FinFlow wrote; a `StorageError` if it is missing, unreadable, or no JSON object."""
    with storage_errors(path, "read"):
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: damaged (no valid JSON); remove it or restore it from a copy") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path}: damaged (no JSON object); remove it or restore it from a copy")
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file with a JSON object a line; empty where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte of `data`: `os.write` may take only a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot fsync a folder
            raise
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain data")


def flatten(tree: Mapping[str, Any], prefix: str = "", *, lists: bool = False) -> dict[str, Any]:
    """Leaves of nested mappings by dotted key, in their order; an empty mapping has none.

    `prefix` is put before every key. Lists and tuples are leaves or, with `lists`, nested, their places the keys.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = dict(enumerate(value)) if lists and isinstance(value, list | tuple) else value
        found |= (
            flatten(inner, f"{prefix}{key}.", lists=lists) if isinstance(inner, Mapping) else {f"{prefix}{key}": inner}
        )
    return found


LOCK = ".lock"
"""It stays in the folder: after a removal two processes could lock two files of one name."""
LOOK = 0.02
"""Seconds between two tries for a lock."""


@contextlib.contextmanager
def file_lock(path: Path, patience: float = 0.0) -> Generator[tuple[int, bool]]:
    """Open `path`, made if missing, and hold its lock within the block.

    Gives a descriptor, to read and to append (a child that inherits it shares the lock), and whether the lock is held:
    not where another process kept it for `patience` seconds.

    Raises
    ------
    StorageError
        If the file cannot be opened, is a link, or cannot be locked.
    """
    with storage_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    end = time.monotonic() + patience
    held = False
    try:
        with storage_errors(path, "locked"):
            while not held:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held = True
                except BlockingIOError:
                    if time.monotonic() >= end:
                        break
                    time.sleep(LOOK)
        yield descriptor, held
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lock of `folder`, made if missing, within the block.

    Raises
    ------
    LockedError
        If another process holds it; the line names that process.
    StorageError
        If the folder cannot be written.
    """
    with file_lock(folder / LOCK) as (descriptor, held):
        if not held:
            raise LockedError(f"{folder}: in use by {_holder(descriptor)}; wait for it, or stop it")
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with storage_errors(folder / LOCK, "written"):
            os.ftruncate(descriptor, 0)
            write_all(descriptor, (json.dumps(holder) + "\n").encode())
        yield


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError):  # it is just writing its name
        return "another process"
