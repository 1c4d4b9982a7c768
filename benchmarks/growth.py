"""How cost grows: time of an update, of features, of a sample and of runs side by side, and memory.

    make growth ARGS="--figure docs/images/growth.svg"
    make growth ARGS="--only 'side by side'"

Every setting runs in a process of its own, so that its peak memory is its own. Results are kept in
outputs/bench/growth.json setting by setting; with --only the others stay as they were measured before.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contenders import BY_CRITIC, CQL_DRAWS, PAPER, phase1, phase2
from benchmarks.growth_figure import draw
from benchmarks.parts import features_and_priors, synthetic
from benchmarks.worker import ONE_THREAD, peak_mib
from finflow.seeding import torch_stream
from finflow.training.replay_buffer import ReplayBuffer

ROOT = Path(__file__).resolve().parents[1]
BESIDE, JOB = "B-Cell portfolio, CQL by default", ["experiment=demo"]
LONGEST = 10.0  # CPU-seconds: larger settings are measured fewer than seven times
Cost = dict[str, float]


def _updates(build: Callable[..., Callable[[int], None]], *changes: str, atoms: int = 32) -> Cost:
    """Median CPU milliseconds of an update, its batch not included."""
    burst = build(*changes, atoms=atoms, with_batch=False)
    burst(1)
    took: list[float] = []
    while len(took) < 7 and sum(took) < LONGEST:
        start = time.process_time()
        burst(2)
        took.append((time.process_time() - start) / 2)
    return {"ms": 1e3 * float(np.median(took))}


def _replay(size: int) -> Cost:
    """A memory of `size` transitions of 20 names, filled; CPU milliseconds of a batch of 256 from it."""
    device, count, chunk = torch.device("cpu"), 21, 100_000
    memory, weights = ReplayBuffer(size, count, device), torch.full((chunk, count), 1.0 / count)
    row, start = torch.zeros(chunk, dtype=torch.int64), torch.full((chunk,), -1)
    for _ in range(size // chunk):
        memory.add(row, row + 1, weights, weights, torch.zeros(chunk), start)
    generator, took = torch_stream(0, "bench"), []
    for _ in range(50):
        begin = time.process_time()
        memory.sample(256, generator)
        took.append(time.process_time() - begin)
    return {"ms": 1e3 * float(np.median(took))}


def _prepared(assets: int, years: int) -> Cost:
    found = features_and_priors(synthetic(assets, 252 * years))
    return {"ms": 1e3 * (found["features"] + found["priors"]), "features_s": found["features"], **found}


def _assets(build: Callable[..., Callable[[int], None]], assets: int) -> Cost:
    return _updates(build, f"env.synthetic.assets={assets}")


def _beside(runs: int) -> Cost:
    """So many processes that learn at once: milliseconds by the clock for an update of any, and memory of all."""
    line = [sys.executable, "-m", "benchmarks.worker", "benchmarks.contenders", BESIDE]
    environment, pipe = os.environ | ONE_THREAD, subprocess.PIPE
    workers = [
        subprocess.Popen(line, cwd=ROOT, env=environment, text=True, bufsize=1, stdin=pipe, stdout=pipe)
        for _ in range(runs)
    ]

    def answers(updates: int = 0) -> list[dict[str, Any]]:
        """What each says to a burst, or that it is ready."""
        for worker in workers if updates else ():
            assert worker.stdin is not None
            worker.stdin.write(f"{updates}\n")
        return [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout is not None]

    answers()
    rates, burst = list[float](), 50
    for _ in range(5):
        said = answers(burst)
        rates.append(sum(burst / one["wall"] for one in said))
    for worker in workers:
        worker.communicate()
    return {"ms": 1e3 / float(np.median(rates)), "peak_mib": sum(one["peak_mib"] for one in said)}


def _jobs(at_once: int) -> Cost:
    """A sweep of four pretrained jobs, so many at once: milliseconds by the clock for a job, and memory of all."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "experiments/pretrain.py", *JOB, f"output_root={folder}"]
        subprocess.run([*line, "budget.epochs=1"], cwd=ROOT, check=True, capture_output=True)  # its data are cached
        launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}"]
        begin = time.perf_counter()
        subprocess.run([*line, "-m", "seed=range(4)", *launcher], cwd=ROOT, check=True, capture_output=True)
        took = time.perf_counter() - begin
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)
    return {"ms": 1e3 * took / 4, "peak_mib": at_once * largest}


SETTINGS: dict[str, tuple[tuple[int, ...], Callable[[int], Cost]]] = {
    "assets, IQL update": ((20, 100, 500), lambda n: _assets(phase1, n)),
    "assets, B-Cell update with CQL": ((20, 100, 500), lambda n: _assets(phase2, n)),
    "assets, features and priors of 10 years": ((20, 100, 500), lambda n: _prepared(n, 10)),
    "years, features and priors of 20 names": ((10, 20, 40), lambda n: _prepared(20, n)),
    "actors in one pass, IQL update": ((1, 2, 4, 8), lambda n: _updates(phase1, f"algo.actors={n}")),
    "walkers of each actor, IQL update": ((32, 256, 1024, 4096), lambda n: _updates(phase1, f"algo.walkers={n}")),
    "batch, IQL update by transitions": (
        (64, 256, 1024, 4096),
        lambda n: _updates(phase1, *PAPER, f"algo.batch_size={n}"),
    ),
    "quantiles, IQL update by transitions": ((8, 32, 128), lambda n: _updates(phase1, *PAPER, atoms=n)),
    "CQL draws, B-Cell update by transitions": (
        (5, 10, 30),
        lambda n: _updates(phase2, *BY_CRITIC, CQL_DRAWS.format(n)),
    ),
    "transitions held, one batch": ((100_000, 1_000_000, 10_000_000), _replay),
    "seeds side by side, B-Cell update": ((1, 2), _beside),
    "sweep jobs side by side, one job": ((1, 2), _jobs),
}


def measure(name: str, size: int) -> Cost:
    """One setting in a process of its own; its cost and peak memory (MiB)."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--one", name, str(size)],
        cwd=ROOT, env=os.environ | ONE_THREAD, text=True, capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1])


def exponent(rows: dict[str, Cost]) -> float:
    """Slope of ln cost in ln size between the two largest sizes: 1 is linear."""
    (a, low), (b, high) = list(rows.items())[-2:]
    return float(np.log(high["ms"] / low["ms"]) / np.log(float(b) / float(a)))


def table(found: dict[str, dict[str, Cost]]) -> str:
    """The results as Markdown."""
    lines = ["| what grows | size | ms | peak memory, MiB | exponent |", "| --- | --- | --- | --- | --- |"]
    for name, rows in found.items():
        sizes = ", ".join(f"{int(size):,}" for size in rows)
        cost = ", ".join(f"{row['ms']:,.1f}" for row in rows.values())
        memory = ", ".join(f"{row['peak_mib']:,.0f}" for row in rows.values())
        lines.append(f"| {name} | {sizes} | {cost} | {memory} | {exponent(rows):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/growth.json"))
    parser.add_argument("--figure", type=Path, default=Path("outputs/bench/growth.svg"))
    parser.add_argument("--only", default="", metavar="WORD", help="only what has this in its name")
    options = parser.parse_args()
    if options.one:
        name, size = options.one[0], int(options.one[1])
        cost: dict[str, Any] = SETTINGS[name][1](size)
        print(json.dumps({"peak_mib": peak_mib(), **cost}))
        return
    torch.set_num_threads(1)
    before = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in (name for name in SETTINGS if options.only in name):
        before[name] = {str(size): measure(name, size) for size in SETTINGS[name][0]}
        options.out.write_text(json.dumps(before, indent=1))
        print(f"{name}: {', '.join(format(row['ms'], '.1f') for row in before[name].values())} ms", flush=True)
    found = {name: before[name] for name in SETTINGS if name in before}
    draw(found, options.figure)
    print(f"\n{table(found)}\n\nResults: {options.out}, figure: {options.figure}")


if __name__ == "__main__":
    main()
