"""Runs a sink in a thread of its own, so that its failures and delays never affect training."""

import contextlib
import gc
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from finflow.tracking.console import warn
from finflow.tracking.sink import Sink

BACKLOG = 4096
"""Longest queue of reports; a sink that falls further behind is given up."""

Report = Callable[[Sink], None]

_left: list[threading.Thread] = []
"""Threads that were given up."""


class BackgroundSink:
    """Passes reports to a sink, in order and without waiting, until it fails, falls behind or hangs.

    Parameters
    ----------
    name : for the warning that says why it was given up.
    build : makes the sink, in the thread, so that the run does not wait for its imports.
    patience : seconds that `close` waits for it.
    """

    def __init__(self, name: str, build: Callable[[], Sink], patience: float) -> None:
        self._name, self._build, self._patience = name, build, patience
        self._reports: queue.Queue[Report | None] = queue.Queue(BACKLOG)
        self._sink: Sink | None = None
        self._over = False
        self._thread = threading.Thread(target=self._work, name=f"tracking.{name}", daemon=True)
        self._thread.start()

    def tell(self, report: Report) -> None:
        """Queue a report for the sink; returns at once."""
        if self._over:
            return
        try:
            self._reports.put_nowait(report)
        except queue.Full:
            self._give_up(f"{BACKLOG} reports behind")

    def close(self, *, failed: bool, within: float | None = None) -> None:
        """Have the sink write what is left, and wait for it; a second call does nothing.

        Parameters
        ----------
        within : seconds to wait at most, where that is less than `patience`.
        """
        if self._over:
            return
        patience = self._patience if within is None else min(self._patience, within)

        def last(sink: Sink) -> None:
            sink.close(failed=failed)
            self._over = True

        self.tell(last)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._give_up(f"not done {patience:.3g} s after the run")
        self._over = True

    def _work(self) -> None:
        try:
            self._sink = self._build()
            while not self._over:
                report = self._reports.get()
                if report is not None and not self._over:
                    report(self._sink)
        except Exception as error:  # noqa: BLE001 - whatever a tracking library raises, training goes on
            if not self._over:
                self._over = True
                given_up(self._name, " ".join(str(error).split()) or type(error).__name__)

    def _give_up(self, reason: str) -> None:
        """Leave the thread to itself: it ends with the process, or at its next report."""
        self._over = True
        leave_behind(self._thread)
        given_up(self._name, "; ".join(filter(None, (reason, self._sink.remains() if self._sink else ""))))
        while not self._reports.empty():
            try:
                self._reports.get_nowait()
            except queue.Empty:
                break
        self._reports.put_nowait(None)  # wakes a thread that waits
        if self._sink is not None:
            self._sink.abandon()


def given_up(name: str, reason: str) -> None:
    """Warn once that a sink was given up."""
    warn(f"tracking.{name}: switched off for the rest of the run ({reason}); metrics.jsonl goes on")


def leave_behind(thread: threading.Thread) -> None:
    """Give up `thread`: nothing waits for it any more, not even the end of the process."""
    _left.append(thread)


def end_process(code: int) -> NoReturn:
    """End the process with `code`, at once if a thread that was given up still runs.

    Python ends such a thread when it next asks for the interpreter; one that comes back from a library's native code
    takes the process down with it (SIGABRT or SIGSEGV) after a run that went well. The last garbage
    collection is skipped too: it takes a second or more of processor time, a minute on a busy machine.
    """
    if any(thread.is_alive() for thread in _left):
        with contextlib.suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    gc.freeze()
    sys.exit(code)
