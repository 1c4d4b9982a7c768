"""How a failure or a signal ends: one line on stderr and the exit code of `finflow/errors.py`."""

import errno
import os
import re
import signal
import sys
import traceback
from types import FrameType

from hydra.errors import HydraException

from finflow.artifacts.runs import typable
from finflow.errors import ConfigError, FinFlowError, Interrupted, StorageError

STORAGE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
"""Errors of the machine's storage; any other OSError is a fault of the program."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNREAD = 141
"""Exit code where the reader of the output has left, as a shell gives it for SIGPIPE."""


def exit_code(error: BaseException) -> int:
    """Print `error` as one line, with a traceback where the fault is FinFlow's, and return the exit code for it."""
    if isinstance(error, FinFlowError):
        tell(str(error))
        return error.exit_code
    if isinstance(error, HydraException):
        tell(str(error))
        return ConfigError.exit_code
    if isinstance(error, KeyboardInterrupt):
        tell(str(error) or "interrupted")
        return error.exit_code if isinstance(error, Interrupted) else 130
    if isinstance(error, BrokenPipeError) and error.filename is None:  # as by `| head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python still holds goes nowhere
        return UNREAD
    # Python's own error, or torch's on either device.
    short = isinstance(error, RuntimeError) and re.search("can't allocate memory|out of memory", str(error))
    if isinstance(error, MemoryError) or short:
        remedy = "lower algo.batch_size or algo.network.hidden_dim, or take hardware=low_memory"
        tell(f"out of memory ({error}); {remedy}")
        return ConfigError.exit_code
    if isinstance(error, OSError) and error.errno in STORAGE:
        tell(f"{error.filename or 'output'}: {error.strerror}; free the place or choose another output_root")
        return StorageError.exit_code
    traceback.print_exception(error)
    tell("this is a bug of FinFlow; please report it with the lines above and the command that you ran")
    return 70


def tell(message: str) -> None:
    """Say on stderr, in one line, what went wrong; a name out of a file cannot steer the terminal."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(typable(message).split()))
    print(f"error: {line}", file=sys.stderr, flush=True)


def end_at_once() -> None:
    """From now on the first signal raises `Interrupted` wherever the process is; those after it are ignored."""

    def end(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted("interrupted", signal.Signals(number))

    for number in SIGNALS:
        signal.signal(number, end)
