"""Atomic writes, and storage failures in one line."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from finflow.errors import StorageError

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
    """Turn an `OSError` within the block into one line that names `path` and the reason.

    Parameters
    ----------
    verb : what was tried, "written" or "read".

    Raises
    ------
    StorageError
        Disk full, read-only, no permission, missing, I/O error.
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
    """Remove what writes that a kill cut short left in `folder`, which nobody else may be writing.

    Raises
    ------
    StorageError
        If it cannot be removed.
    """
    for path in folder.glob(f"{_TEMPORARY}*"):
        with storage_errors(path, "removed"):
            path.unlink(missing_ok=True)


def atomic_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, atomically; keys keep their order, numpy scalars become numbers.

    Raises
    ------
    StorageError
        As `atomic_write`.
    ValueError
        If a float is not finite: an undefined figure is None.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    atomic_write(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that FinFlow wrote.

    Raises
    ------
    StorageError
        If it is missing, unreadable, or not a JSON object.
    """
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
