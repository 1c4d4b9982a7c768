"""A sweep that is killed again and again, typed again each time: its table is that of one that was left alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from finflow.sweeps.folder import SweepFolder

from .conftest import ROOT, call
from .test_jobs import table
from .tiny import SMALL

PRETRAIN = ROOT / "experiments" / "pretrain.py"
LINE = [*SMALL, "budget.epochs=6", "checkpoint.interval=1", "-m", "seed=0,1", "algo.lr=3e-4,1e-3"]
KILLS = 8


def kill_running(folder: Path) -> bool:
    """Kill the job that is being run, if there is one."""
    sweep = SweepFolder(folder)
    for job in sweep.manifest().jobs if sweep.exists else ():
        status = sweep.status(job.name)
        if status.state == "running" and status.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGKILL)
                return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_no_job_is_done_twice_and_the_table_is_the_same(tmp_path: Path, seed: int) -> None:
    begin = time.monotonic()
    whole = call(tmp_path, PRETRAIN, *LINE, "output_root=whole", timeout=3600)
    lasted = time.monotonic() - begin
    assert whole.returncode == 0, whole.stderr
    (alone,) = tmp_path.glob("whole/pretrain/*/sweep-*")
    folder = tmp_path / "fire" / alone.relative_to(tmp_path / "whole")
    rng, done, killed, code = np.random.default_rng(seed), dict[Path, tuple[int, int]](), list[str](), -1
    for attempt in range(10 * KILLS):
        command = [sys.executable, str(PRETRAIN), *LINE, "output_root=fire"]
        sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = sweep.wait(rng.uniform(0.02, 0.4) * lasted if len(killed) < KILLS else 3600)
        except subprocess.TimeoutExpired:
            if attempt % 3 and kill_running(folder):
                killed.append("job")
            if attempt % 3 != 1:
                sweep.kill()
                killed.append("sweep")
            code = sweep.wait(3600)
        for path in folder.glob("*/summary.json"):
            once = path.stat().st_ino, path.stat().st_mtime_ns
            assert done.setdefault(path, once) == once
        if code == 0:
            break
    assert code == 0
    assert {"job", "sweep"} <= set(killed)
    assert len(done) == 4
    assert table(tmp_path, folder)[0] == table(tmp_path, alone)[0]
    for path in alone.glob("*/weights.safetensors"):
        assert (folder / path.relative_to(alone)).read_bytes() == path.read_bytes()
