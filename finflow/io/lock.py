"""File locks that the kernel releases when their holder ends."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

from finflow.errors import LockedError
from finflow.io.files import storage_errors, write_all

LOCK = ".lock"
"""It stays in the folder: after a removal two processes could lock two files of one name."""
LOOK = 0.02
"""Seconds between two tries for a lock."""


@contextlib.contextmanager
def file_lock(path: Path, patience: float = 0.0) -> Generator[tuple[int, bool]]:
    """Open `path`, made if missing, and hold its lock within the block.

    Parameters
    ----------
    patience : seconds to wait for another holder.

    Returns
    -------
    Descriptor, to read and to append; a child that inherits it shares the lock. Whether the lock is held: not where
    another process kept it.

    Raises
    ------
    StorageError
        If the file cannot be opened, is a link, or cannot be locked.
    """
    with storage_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        yield descriptor, _taken(path, descriptor, time.monotonic() + patience)
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


def _taken(path: Path, descriptor: int, end: float) -> bool:
    """Lock an open file as soon as it is free; False where it is not by the time `end`."""
    with storage_errors(path, "locked"):
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= end:
                    return False
                time.sleep(LOOK)


def _holder(descriptor: int) -> str:
    """The holder of the lock, as its file names it."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['pid'])} on {str(holder['host'])[:80]} since {str(holder['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
