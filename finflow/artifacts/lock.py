"""One writer to a run folder: a lock that the kernel takes back when its holder ends, however it ends."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Generator
from pathlib import Path

from finflow.artifacts.files import storage_errors, write_all
from finflow.artifacts.provenance import now
from finflow.errors import LockedError

LOCK = ".lock"
"""Stays in the folder: taking it away would let two processes hold locks on two files of one name."""


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
    path = folder / LOCK
    with storage_errors(path, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with storage_errors(path, "locked"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(f"{folder}: in use by {_holder(descriptor)}; wait for it, or stop it") from None
            os.ftruncate(descriptor, 0)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
            write_all(descriptor, (json.dumps(holder) + "\n").encode())
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Who holds the lock, as far as its file says."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['pid'])} on {str(holder['host'])[:80]} since {str(holder['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
