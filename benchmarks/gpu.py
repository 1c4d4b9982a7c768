"""Updates per second on the device at hand, to fill the GPU table of docs/performance.md: synchronised wall time.

    .venv/bin/python -m benchmarks.gpu [--device auto] [--updates 200]

Runs on a CPU too, where it shows that it runs and no more. Learners are as shipped: value gradients, four actors in
one pass. Batches and paths are drawn and booked on the device, as in training.
"""

import argparse
import time

import torch

from benchmarks.contenders import phase1, phase2

SETTINGS = {
    "float32": [],
    "bf16": ["hardware.precision=bf16"],
    "compiled": ["hardware.compile=reduce-overhead"],
    "bf16, compiled": ["hardware.precision=bf16", "hardware.compile=reduce-overhead"],
}


def rate(build: str, device: str, batch: int, updates: int, changes: list[str]) -> float:
    """Updates per second of wall time, warmed up, the device's queue drained at both ends."""
    asked = [f"hardware.device={device}", f"algo.batch_size={batch}", *changes]
    burst = {"IQL": phase1, "B-Cell": phase2}[build](*asked)
    burst(min(10, updates))
    drain = torch.cuda.synchronize if torch.cuda.is_available() and device != "cpu" else lambda: None
    drain()
    start = time.perf_counter()
    burst(updates)
    drain()
    return updates / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["float32", "bf16", "compiled"])
    options = parser.parse_args()
    cuda = torch.cuda.is_available() and options.device != "cpu"
    print(f"{torch.cuda.get_device_name() if cuda else 'CPU'}, torch {torch.__version__}\n")
    print("| learner | computing | batch | updates a second |\n| --- | --- | --- | --- |")
    for build in ("IQL", "B-Cell"):
        for name in options.settings:
            for batch in options.batch:
                found = rate(build, options.device, batch, options.updates, SETTINGS[name])
                print(f"| {build} | {name} | {batch} | {found:.1f} |", flush=True)


if __name__ == "__main__":
    main()
