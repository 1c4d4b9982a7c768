"""Warnings of a run: one line each on stderr, each printed once."""

import contextlib
import sys

_said: set[str] = set()


def warn(message: str) -> None:
    """Print `warning: MESSAGE` to stderr as one line, unless this process has printed it before."""
    line = " ".join(message.split())
    if line in _said:
        return
    _said.add(line)
    with contextlib.suppress(OSError):  # a closed stderr must not end a training run
        print(f"warning: {line}", file=sys.stderr, flush=True)
