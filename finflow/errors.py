"""The exceptions of FinFlow, each with its exit code.

The codes are part of the contract: 0 done, 1 a sweep with failed jobs, 2 bad input or config, 3 storage, 4 locked,
5 diverged, 6 audit failed or ledger tampered with, 70 a bug of ours, 130 and 143 interrupted, 141 output that nobody
reads any more. A message is one line that names the file, key or value, and the remedy.
"""

import signal
from collections.abc import Sequence


class FinFlowError(Exception):
    """Base of every failure a user can mend; `exit_code` is what the process ends with."""

    exit_code = 70


class ConfigError(FinFlowError):
    """A key, value or combination of settings that cannot be run."""

    exit_code = 2


class DataError(FinFlowError):
    """Input data that cannot be believed: `file:row:column: what is wrong; what to do`."""

    exit_code = 2


class ParentError(FinFlowError):
    """Pretrained weights that are missing or do not fit this run."""

    exit_code = 2


class StorageError(FinFlowError):
    """A folder that cannot be written, a full disk, or a file whose hash does not match."""

    exit_code = 3


class LockedError(FinFlowError):
    """A run folder that another process is writing."""

    exit_code = 4


class DivergedError(FinFlowError):
    """A NaN or infinity in a loss, gradient or weight."""

    exit_code = 5


class AuditError(FinFlowError):
    """An audit that failed, or a log of test-window openings that was tampered with."""

    exit_code = 6


class Interrupted(KeyboardInterrupt):
    """A run that a signal ended; no `Exception`, so that nothing on the way takes it for a failure to go on after."""

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def some(names: Sequence[object]) -> str:
    """The first three of some names, for a line that has no room for more."""
    return ", ".join(str(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
