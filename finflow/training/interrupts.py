"""SIGINT and SIGTERM: a training loop stops at its next pause; anywhere else the process ends at once."""

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

from finflow.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """The signal that a run received, if any."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """Record the signal; a second one changes nothing."""
        self.asked = self.asked or signal.Signals(number)


@contextlib.contextmanager
def stop_when_asked() -> Generator[Stop]:
    """Within the block a signal only sets a flag, which a loop reads at its pauses (in the main thread alone).

    The loop raises `Interrupted` itself, when it has saved a checkpoint.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once() -> None:
    """From now on the first signal raises `Interrupted` wherever the process is; those after it are ignored."""

    def end(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted("interrupted", signal.Signals(number))

    for number in SIGNALS:
        signal.signal(number, end)
