"""How cost grows: CPU time of an update, of features and of a sample, and memory, into outputs/bench/growth.json.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.growth [--figure docs/images/growth.svg]

Every setting runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contenders import CQL_DRAWS, bcell, iql
from benchmarks.parts import features_and_priors, synthetic
from benchmarks.worker import ONE_THREAD, peak_mib
from finflow.replay import Replay
from finflow.seeding import torch_stream

ROOT = Path(__file__).resolve().parents[1]
Cost = dict[str, float]


def _updates(build: Callable[..., Callable[[int], None]], *changes: str, atoms: int = 32) -> Cost:
    """Median CPU milliseconds of an update, its batch not included."""
    burst = build(*changes, atoms=atoms, with_batch=False)
    burst(3)
    took: list[float] = []
    for _ in range(7):
        start = time.process_time()
        burst(2)
        took.append((time.process_time() - start) / 2)
    return {"ms": 1e3 * float(np.median(took))}


def _replay(size: int) -> Cost:
    """A memory of `size` transitions of 20 names, filled; CPU milliseconds of a batch of 256 from it."""
    device, count, chunk = torch.device("cpu"), 21, 100_000
    memory, weights = Replay(size, count, device), torch.full((chunk, count), 1.0 / count)
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


SETTINGS: dict[str, tuple[tuple[int, ...], Callable[[int], Cost]]] = {
    "assets, IQL update": ((20, 50, 100), lambda n: _assets(iql, n)),
    "assets, B-Cell update with CQL": ((20, 50, 100), lambda n: _assets(bcell, n)),
    "assets, features and priors of 10 years": ((20, 50, 100), lambda n: _prepared(n, 10)),
    "years, features and priors of 20 names": ((10, 20, 40), lambda n: _prepared(20, n)),
    "batch, IQL update": ((64, 256, 1024, 4096), lambda n: _updates(iql, f"algo.batch_size={n}")),
    "quantiles, IQL update": ((8, 32, 128), lambda n: _updates(iql, atoms=n)),
    "CQL draws of each kind, B-Cell update": ((5, 10, 30), lambda n: _updates(bcell, CQL_DRAWS.format(n))),
    "transitions held, one batch": ((100_000, 1_000_000, 10_000_000), _replay),
}


def measure(name: str, size: int) -> Cost:
    """One setting in a process of its own; its cost and peak memory (MiB)."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--one", name, str(size)],
        cwd=ROOT, env=os.environ | ONE_THREAD, text=True, capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1])


def draw(found: dict[str, dict[str, Cost]], path: Path) -> None:
    """A panel for each setting, both axes logarithmic, as SVG; a dashed line is linear growth."""
    wide, high, parts = 240, 190, list[str]()
    for at, (name, rows) in enumerate(found.items()):
        x = np.log10([float(size) for size in rows])
        y = np.log10([row["ms"] for row in rows.values()])
        linear = y[0] + (x - x[0])
        span, low = max(np.ptp(np.concatenate([y, linear])), 0.5), min(y.min(), linear.min())
        left, top = 20 + wide * (at % 4), 30 + high * (at // 4)
        across = left + (wide - 60) * (x - x[0]) / np.ptp(x)
        up, straight = (top + 110 - 95 * (line - low) / span for line in (y, linear))

        def line(heights: Any, style: str, across: Any = across) -> str:
            points = " ".join(f"{a:.1f},{h:.1f}" for a, h in zip(across, heights, strict=True))
            return f'<polyline points="{points}" fill="none" {style}/>'

        parts += [
            f'<text x="{left}" y="{top - 10}" font-size="11">{name}</text>',
            line(straight, 'stroke="#999" stroke-dasharray="4 3"'),
            line(up, 'stroke="#1f4e79" stroke-width="2"'),
        ]
        for size, row, a, h in zip(rows, rows.values(), across, up, strict=True):
            parts += [
                f'<circle cx="{a:.1f}" cy="{h:.1f}" r="3" fill="#1f4e79"/>',
                f'<text x="{a:.1f}" y="{h - 6:.1f}" font-size="9" text-anchor="middle">{row["ms"]:,.3g}</text>',
                f'<text x="{a:.1f}" y="{top + 128}" font-size="9" text-anchor="middle">{float(size):,.0f}</text>',
            ]
    size = f'width="{wide * 4}" height="{high * ((len(found) + 3) // 4)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n")


def exponent(rows: dict[str, Cost]) -> float:
    """Slope of ln cost in ln size between the two largest sizes: 1 is linear."""
    (a, low), (b, high) = list(rows.items())[-2:]
    return float(np.log(high["ms"] / low["ms"]) / np.log(float(b) / float(a)))


def table(found: dict[str, dict[str, Cost]]) -> str:
    """The results as Markdown."""
    lines = ["| what grows | size | CPU ms | peak memory, MiB | exponent |", "| --- | --- | --- | --- | --- |"]
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
    options = parser.parse_args()
    if options.one:
        name, size = options.one[0], int(options.one[1])
        cost: dict[str, Any] = SETTINGS[name][1](size)
        print(json.dumps({**cost, "peak_mib": peak_mib()}))
        return
    torch.set_num_threads(1)
    found: dict[str, dict[str, Cost]] = {}
    for name, (sizes, _) in SETTINGS.items():
        found[name] = {}
        for size in sizes:
            found[name][str(size)] = measure(name, size)
            print(f"{name}: {size:,}: {found[name][str(size)]['ms']:.1f} ms", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1))
    draw(found, options.figure)
    print(f"\n{table(found)}\n\nResults: {options.out}, figure: {options.figure}")


if __name__ == "__main__":
    main()
