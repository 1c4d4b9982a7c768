"""Sinks that fail, fall behind or hang: what follows costs the run no more than a bounded wait at its end."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import pytest

from finflow.tracking import sink
from finflow.tracking.sink import BackgroundSink, Sink
from finflow.tracking.tracker import CompositeTracker

WAIT = 0.2
PROMPT = 1.0
"""Seconds of a loop that waits for nobody; one that waited would take two at least."""


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    sink._said.clear()


class Truth(Sink):
    def __init__(self) -> None:
        self.rows: list[int] = []

    def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
        self.rows.append(step)

    def close(self, *, failed: bool = False) -> None:
        self.rows.append(-1)


class Hanging(Truth):
    """Never comes back from the call named `at`, until it is abandoned."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at, self.abandoned = at, threading.Event()
        if at == "start":
            self.abandoned.wait(20)

    def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
        super().log(step_name, step, row)
        if self.at == "log":
            self.abandoned.wait(20)

    def close(self, *, failed: bool = False) -> None:
        if self.at == "close":
            self.abandoned.wait(20)

    def abandon(self) -> None:
        self.abandoned.set()


def drive(sink: Hanging | None, at: str, steps: int) -> tuple[Truth, float, float]:
    """Truth, seconds of the loop, and seconds of the end."""
    truth = Truth()
    tracker = CompositeTracker(truth, {"bad": lambda: sink or Hanging(at)}, WAIT)
    begin = time.monotonic()
    for step in range(steps):
        tracker.log("episode", step, {"x": 0.5})
    middle = time.monotonic()
    tracker.close()
    return truth, middle - begin, time.monotonic() - middle


@pytest.mark.parametrize("at", ["log", "close"])
def test_a_hanging_sink_costs_no_time_but_a_bounded_wait(at: str, capsys: pytest.CaptureFixture[str]) -> None:
    sink = Hanging(at)
    truth, loop, end = drive(sink, at, 500)
    assert truth.rows == [*range(500), -1]
    assert loop < PROMPT
    assert WAIT <= end < WAIT + PROMPT
    assert sink.abandoned.is_set()
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning: tracking.bad: switched off for the rest of the run (not done 0.2 s after the run);"
        " metrics.jsonl goes on"
    ]


def test_a_sink_that_hangs_before_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Event, "wait", _shortened(threading.Event.wait))
    truth, loop, end = drive(None, "start", 500)
    assert truth.rows == [*range(500), -1]
    assert loop < PROMPT
    assert end < WAIT + PROMPT


def _shortened(wait):
    return lambda event, seconds=None: wait(event, min(seconds, 2.0) if seconds else seconds)


def test_one_that_falls_too_far_behind_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sink, "BACKLOG", 16)
    monkeypatch.setattr(sys.modules[__name__], "WAIT", 10.0)
    hanging = Hanging("log")
    truth, loop, end = drive(hanging, "log", 500)
    assert truth.rows == [*range(500), -1]
    assert hanging.abandoned.is_set()
    assert loop + end < PROMPT  # given up during the run: nothing to wait for
    assert "switched off for the rest of the run (16 reports behind)" in capsys.readouterr().err


def test_a_slow_sink_gets_everything_in_order_and_does_not_slow_the_loop() -> None:
    class Slow(Truth):
        def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
            time.sleep(0.05)
            super().log(step_name, step, row)

    sink = Slow()
    tracker = CompositeTracker(Truth(), {"slow": lambda: sink}, 10.0)
    begin = time.monotonic()
    for step in range(60):
        tracker.log("episode", step, {"x": 0.5})
    assert time.monotonic() - begin < PROMPT
    tracker.close()
    tracker.close()
    assert sink.rows == [*range(60), -1]


def test_a_sink_is_told_whether_the_run_failed() -> None:
    told: list[bool] = []

    class Ended(Sink):
        def close(self, *, failed: bool) -> None:
            told.append(failed)

    for failed in (True, False):
        beside = BackgroundSink("sink", Ended, 5.0)
        beside.close(failed=failed)
    assert told == [True, False]


def test_all_sinks_together_have_no_longer_than_they_are_given() -> None:
    truth, sinks = Truth(), [Hanging("close") for _ in range(3)]
    tracker = CompositeTracker(truth, {f"bad {k}": lambda k=k: sinks[k] for k in range(3)}, 30.0)
    begin = time.monotonic()
    tracker.close(failed=True, within=WAIT)
    assert WAIT <= time.monotonic() - begin < WAIT + 0.3
    assert truth.rows == [-1]
    assert all(sink.abandoned.is_set() for sink in sinks)


NATIVE = """
import sys, time
from typing import Annotated
from pydantic import AfterValidator, BaseModel
from finflow.tracking.sink import BackgroundSink, end_process
from finflow.tracking.sink import Sink

class Model(BaseModel):  # validation calls back from native code, where its thread must not be ended
    x: Annotated[int, AfterValidator(lambda x: time.sleep(0.05) or x)]

class Native(Sink):
    def log(self, step_name, step, row):
        while True:
            Model(x=1)

beside = BackgroundSink("native", Native, 0.3)
beside.tell(lambda sink: sink.log("episode", 1, {}))
beside.close(failed=False)
print("the run went well")
end_process(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 5])
def test_a_sink_that_hangs_in_native_code_does_not_change_the_exit_code(code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NATIVE, str(code)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (code, "the run went well\n")
    assert len(done.stderr.splitlines()) == 1


CYCLE = """
import sys
from finflow.tracking.sink import end_process

class Kept:
    def __del__(self):
        print("looked for garbage")

kept = Kept()
kept.itself = kept
if sys.argv[1] == "leave":
    end_process(0)
"""


@pytest.mark.parametrize(("end", "said"), [("leave", ""), ("as Python does", "looked for garbage\n")])
def test_the_process_ends_without_a_look_through_all_objects(end: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", CYCLE, end], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == said
