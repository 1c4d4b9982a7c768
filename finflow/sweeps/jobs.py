"""One job of a sweep in a process of its own, so that the other jobs go on if it fails.

Every launcher calls `run_job`, whether Hydra's own, a joblib or Ray worker or a SLURM task. It starts the program with
the job's command line, waits, and records how it ended.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from finflow.artifacts.runs import CHECKPOINTS, SUMMARY, override
from finflow.errors import DivergedError, FinFlowError
from finflow.io.files import storage_errors
from finflow.sweeps.folder import State, Status, SweepFolder

PARENT = "FINFLOW_SWEEP_PARENT"
"""Environment variable with the id of the process that waits for a job."""
PATIENCE = 30.0
"""Seconds that a job has to write a checkpoint after SIGTERM."""
LOCKED = 2.0
"""Seconds to wait for a job's lock, which a status check holds for an instant."""
CUT_OFF = ("running", "interrupted", "killed")
"""States that a job resumes from; a job that is `running` without holding its lock was on a machine that was lost."""
_TAIL = 65_536
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class JobError(FinFlowError):
    """A job that did not finish; the other jobs of its sweep go on."""

    exit_code = 1


def run_job(path: Path, name: str, program: Sequence[str]) -> None:
    """Run the job `name` of the sweep in `path`, unless it is finished.

    One that was interrupted or killed goes on from its newest checkpoint, which gives the same bits as an attempt
    without a break; one that failed or diverged begins anew.

    Parameters
    ----------
    program : starts the entry point, for example `[python, experiments/finetune.py]`.

    Raises
    ------
    JobError
        With the reason, which is also written to its status.
    """
    folder = SweepFolder(path)
    with folder.lock(name, patience=LOCKED) as held:
        if held is None:
            raise JobError(f"{folder.run_dir(name)}: another process is at this job; wait for it")
        before = folder.status(name).state
        if before == "finished":
            return
        place = folder.run_dir(name)
        resume = ["resume=true"] if before in CUT_OFF and any((place / CHECKPOINTS).glob("*")) else []
        if not resume:
            with storage_errors(place, "removed"):
                shutil.rmtree(place, ignore_errors=not place.exists())
        status = _attempt(folder, name, [*program, *resume], held)
    if status.state != "finished":
        raise JobError(f"{name}: {status.state}: {status.reason}")


def _attempt(folder: SweepFolder, name: str, program: Sequence[str], held: int) -> Status:
    manifest = folder.manifest()
    job = next(job for job in manifest.jobs if job.name == name)
    pin = manifest.pins.get(name)
    pinned = [] if pin is None else [override(key, value) for key, value in pin.overrides.items()]
    line = [*program, *job.overrides, *pinned, "hydra.mode=RUN", override("hydra.run.dir", folder.run_dir(name))]
    threads = dict.fromkeys(_THREADS, str(manifest.threads))
    environment = os.environ | threads | {"OMP_WAIT_POLICY": "PASSIVE", PARENT: str(os.getpid())}
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    with folder.log(name).open("wb") as log:
        child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(held,),
            start_new_session=True,  # the terminal's Ctrl-C reaches it through `_wait` alone, and once
        )  # fmt: skip
    folder.record(name, Status("running", started=started, host=socket.gethostname(), pid=child.pid))
    peak = None
    try:
        peak = _wait(child)
    finally:
        code = int(child.returncode)
        state, reason = outcome(code, (folder.run_dir(name) / SUMMARY).exists(), tail(folder.log(name)))
        seconds = round(time.monotonic() - begun, 2)
        status = Status(state, reason, code, seconds, peak, started, socket.gethostname(), child.pid)
        folder.record(name, status)
    return status


def outcome(code: int, done: bool, printed: str) -> tuple[State, str]:
    """State and reason of a job from its exit code (minus a signal's number), and the last that it printed."""
    if code == 0 and done:
        return "finished", ""
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; if nobody did that, the machine ran out of memory" if name == "SIGKILL" else ""
        return ("interrupted" if name in ("SIGINT", "SIGTERM") else "killed"), f"ended by {name}{memory}"
    if code in (130, 143):
        return "interrupted", f"ended by {signal.Signals(code - 128).name}"
    if code == 0:
        return "failed", f"ended without {SUMMARY}"
    said = [line.removeprefix("error: ") for line in printed.splitlines() if line.startswith("error: ")]
    reason = said[-1] if said else f"ended with exit code {code} and without a word"
    return ("diverged" if code == DivergedError.exit_code else "failed"), reason


def tail(path: Path) -> str:
    """The end of a text file; nothing where there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL, 0))
        return file.read().decode(errors="replace")
    return ""


def follow_parent() -> None:
    """End this job as SIGTERM would, with a checkpoint, when the process that waits for it is gone (Linux)."""
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before
        os.kill(os.getpid(), signal.SIGTERM)


def _wait(child: "subprocess.Popen[bytes]") -> float:
    """Wait for a process and return its peak memory (MB); signals to end this one are passed on to it first."""
    with _terminable():
        try:
            _, code, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(code)
        except BaseException as told:
            child.send_signal(signal.SIGINT if isinstance(told, KeyboardInterrupt) else signal.SIGTERM)
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            raise
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in kB elsewhere
    return round(used.ru_maxrss / unit, 1)


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """Within the block SIGTERM raises SystemExit(143), where signals can be handled at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
