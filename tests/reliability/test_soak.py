"""Hours of fine-tuning on the embedded market: memory, processor time for an update and file handles stay as they are.

`FINFLOW_SOAK_MINUTES=30 python -m pytest -s -m slow tests/reliability/test_soak.py` runs a shorter one; 120 is its
length where nothing is said. Its figures are printed and kept in `soak.json` in the folder `FINFLOW_SOAK_FOLDER`.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finflow.training.session import Checkpointer

from .conftest import Tiny, forked

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 10.0  # minutes
WINDOWS = 5
EVERY = 2.0  # seconds between two looks
CHUNK = 10.0  # processor seconds at least: a look comes up to two late
BOUNDS = {"memory": 0.02, "cpu_per_update": 0.10, "handles": 0.0}
"""How far a window after the warm-up may be from the first."""


@dataclass(frozen=True)
class Sample:
    """A process at one moment: minutes since its start, resident bytes, processor seconds, open files, updates."""

    minutes: float
    resident: int
    cpu: float
    handles: int
    updates: int


def test_nothing_is_held_from_one_episode_to_the_next(
    tiny: Tiny, wanted: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Open files and live tensors at the same point of every sixth episode, once the memory is full."""
    counted: dict[int, tuple[int, int]] = {}
    pause = Checkpointer.pause

    def watched(keeper: Checkpointer, unit: str, progress: int, *, regular: bool = True) -> None:
        pause(keeper, unit, progress, regular=regular)
        if unit == "episode" and progress % 6 == 0 and progress not in counted:
            gc.collect()
            tensors = sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
            counted[progress] = len(os.listdir("/proc/self/fd")), tensors

    def work() -> None:
        Checkpointer.pause = watched  # type: ignore[method-assign]
        budget = tiny.configs["finetune"].budget.model_copy(update={"episodes": 30})
        tiny.train("finetune", tmp_path / "run", budget=budget)
        (tmp_path / "counted.json").write_text(json.dumps(counted))

    ended = forked(work)
    assert ended.code == 0, ended.said
    found = json.loads((tmp_path / "counted.json").read_text())
    assert len(found) == 6
    assert len({tuple(found[str(k)]) for k in range(12, 31, 6)}) == 1, found


def updates_of(metrics: Path) -> int:
    """Updates that the last whole row of a run speaks of."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return int(json.loads(lines[-1])["updates"]) if lines and "updates" in lines[-1] else 0


def look(pid: int, started: float, metrics: Path) -> Sample:
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    cpu = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    handles = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample((time.monotonic() - started) / 60, resident, cpu, handles, updates_of(metrics))


@pytest.mark.slow
def test_soak(tmp_path: Path) -> None:
    minutes = float(os.environ.get("FINFLOW_SOAK_MINUTES", "120"))
    place = Path(os.environ.get("FINFLOW_SOAK_FOLDER", tmp_path))
    assert minutes > WARM_UP, f"the first {WARM_UP:.0f} minutes are not judged"
    options = ["experiment=demo", f"output_root={place / 'outputs'}"]
    run = place / "run"
    subprocess.run([sys.executable, "experiments/pretrain.py", *options], cwd=ROOT, check=True, capture_output=True)
    more = [
        f"budget.episodes={round(minutes * 300)}",  # more than it can live through
        "checkpoint.interval=32",
        f"hydra.run.dir={run}",
    ]
    samples: list[Sample] = []
    with (place / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "experiments/finetune.py", *options, *more], cwd=ROOT, stdout=said, stderr=said
        )
        started = time.monotonic()
        try:
            while time.monotonic() - started < 60 * minutes:
                time.sleep(EVERY)
                assert process.poll() is None, (place / "said").read_text()
                samples.append(look(process.pid, started, run / "metrics.jsonl"))
        finally:
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            (place / "samples.json").write_text(json.dumps([asdict(sample) for sample in samples]))
            ended = process.wait(300)
    assert ended == 128 + signal.SIGTERM
    stopped_in = time.monotonic() - asked
    figures = judged(samples) | {"stopped_in": stopped_in}
    (place / "soak.json").write_text(json.dumps(figures, indent=2))
    print(json.dumps(figures, indent=2))
    assert not exceeded(figures)
    assert stopped_in < 10


def exceeded(figures: dict[str, Any]) -> set[str]:
    """Which bounds do not hold."""
    return {name for name, bound in BOUNDS.items() if figures[name] > bound}


def judged(samples: list[Sample]) -> dict[str, Any]:
    """How far each window after the warm-up is from the first: memory, processor time for an update, open files.

    An update costs more processor time while neighbours use the same caches and cores, never less. So a window's cost
    is the lowest decile of its stretches: what grows in the run itself lifts all of them. Windows are equal in
    processor time, so that each holds as many updates whatever share of the machine the run has.
    """
    warm = [s for s in samples if s.minutes >= WARM_UP]
    edges = np.linspace(warm[0].cpu, warm[-1].cpu, WINDOWS + 1)
    parts = [[s for s in warm if low <= s.cpu < high] for low, high in pairwise(edges)]
    resident = np.array([np.median([s.resident for s in part]) for part in parts])
    handles = np.array([np.median([s.handles for s in part]) for part in parts])
    cost = [float(np.quantile(costs(part), 0.1)) for part in parts]
    return {
        "minutes": samples[-1].minutes,
        "updates": samples[-1].updates,
        "memory": float(np.abs(resident / resident[0] - 1).max()),
        "cpu_per_update": float(np.abs(np.array(cost) / cost[0] - 1).max()),
        "handles": float(np.abs(handles - handles[0]).max()),
        "resident_by_window": resident.tolist(),
        "cpu_by_window": cost,
        "handles_by_window": handles.tolist(),
    }


def costs(part: list[Sample]) -> list[float]:
    """Processor seconds for an update, stretch by stretch: from one change of the count, told when episodes end, on."""
    found: list[float] = []
    told = [b for a, b in pairwise(part) if b.updates > a.updates]
    for sample in told[1:]:
        if sample.cpu - told[0].cpu >= CHUNK:
            found.append((sample.cpu - told[0].cpu) / (sample.updates - told[0].updates))
            told[0] = sample
    assert len(found) > 2, "too few updates in a window: give it more minutes, or more of the machine"
    return found


def lived(rng: np.random.Generator, *, leak: float = 0.0, slower: float = 0.0, handles: int = 0) -> list[Sample]:
    """Two hours beside neighbours who come and go: what is grown by their end, as parts of the start, and handles."""
    samples, seconds, cpu, updates, share, burden = list[Sample](), 0.0, 0.0, 0, 1.0, 1.0
    while seconds < 7200:
        if rng.random() < 1 / 30:  # every minute or so others begin or end
            share = rng.uniform(0.15, 1)
            burden = 1 + rng.choice([0.0, rng.exponential(0.3)])
        part = seconds / 7200
        cpu += EVERY * share
        updates_by_now = samples[-1].updates if samples else 0
        updates += EVERY * share / (0.08 * burden * (1 + slower * part))
        told = updates_by_now if updates - updates_by_now < 126 else int(updates)
        resident = int(6e8 * (1 + leak * part) + rng.normal(0, 1e6))
        samples.append(Sample(seconds / 60, resident, cpu, 30 + int(handles * part), told))
        seconds += EVERY
    return samples


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("grown", "caught"),
    [
        ({}, set[str]()),
        ({"leak": 0.04}, {"memory"}),
        ({"slower": 0.25}, {"cpu_per_update"}),
        ({"handles": 3}, {"handles"}),
    ],
)
def test_what_grows_is_caught_and_what_neighbours_take_is_not(
    grown: dict[str, Any], caught: set[str], seed: int
) -> None:
    assert exceeded(judged(lived(np.random.default_rng(seed), **grown))) == caught
