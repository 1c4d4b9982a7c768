import os
import pty
import subprocess
import sys

import pytest

from finflow.tracking import sink, tracker

LOOP = (
    "import time; from finflow.tracking.tracker import progress; from finflow.tracking.sink import warn\n"
    "with progress(40, 'training') as advance:\n"
    "    for i in range(40):\n"
    "        advance(v_loss=i / 2); time.sleep(0.02)\n"
    "        if i == 20: warn('half way'); print('on stdout')\n"
    "print('last line')"
)


def test_a_line_every_tenth_where_no_one_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with tracker.progress(1000, "training (updates)") as advance:
        for i in range(500):
            advance(2, v_loss=i / 7, sharpe=None)
    captured = capsys.readouterr()
    assert captured.out == ""
    shown = captured.err.splitlines()
    assert len(shown) == 10
    assert [line.split(":")[1].split()[0] for line in shown] == [f"{n}/1000" for n in range(100, 1001, 100)]
    for part in ("training (updates): 1000/1000", " it/s", "0:00:00 left", "v_loss 71.29", "sharpe -"):
        assert part in shown[-1]


@pytest.mark.parametrize("total", [0, 1, 3])
def test_short_loops(total: int, capsys: pytest.CaptureFixture[str]) -> None:
    with tracker.progress(total, "[epochs]") as advance:
        for _ in range(total):
            advance()
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == total
    assert all(line.startswith("[epochs]: ") for line in shown)


def test_rate_and_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0])
    monkeypatch.setattr(tracker.time, "monotonic", lambda: next(clock))
    with tracker.progress(100, "x") as advance:
        advance(20)
    assert capsys.readouterr().err == "x: 20/100  5 it/s  0:00:16 left\n"


def test_an_error_inside_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), tracker.progress(3, "x") as advance:
        advance(1 // 0)


def test_a_bar_where_someone_watches_and_stdout_left_alone() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=theirs, env=environment) as run:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end has closed
                break
            if not piece:
                break
            shown += piece
        assert run.stdout is not None
        assert run.stdout.read() == b"on stdout\nlast line\n"
    os.close(ours)
    assert run.returncode == 0
    for part in (b"training", b"40/40", b"it/s", b"v_loss 19.5", b"warning: half way\r\n", "━".encode()):
        assert part in shown


def test_a_warning_is_one_line_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    sink._said.clear()
    for _ in range(2):
        sink.warn("ticker X:\n  flat   until 2001")
    sink.warn("another")
    captured = capsys.readouterr()
    assert captured.err == "warning: ticker X: flat until 2001\nwarning: another\n"
    assert captured.out == ""
    sink._said.clear()
    sink.warn("another")
    assert capsys.readouterr().err == "warning: another\n"
