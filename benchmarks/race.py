"""Contenders take turns in short bursts, each in a process of its own, so that a noisy machine hits all alike."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import ONE_THREAD

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
BURST = 0.5  # seconds of CPU, about

RATIOS = [
    ("IQL mlp, 1 atom", "d3rlpy IQL"),
    ("IQL mlp, 1 atom, compiled", "d3rlpy IQL"),
    ("IQL mlp, 32 atoms", "d3rlpy IQL"),
    ("SAC mlp", "sb3-contrib TQC"),
    ("SAC mlp, compiled", "sb3-contrib TQC"),
    ("B-Cell mlp, no CQL", "sb3-contrib TQC"),
    ("SAC mlp", "sbx TQC"),
    ("SAC mlp, compiled", "sbx TQC"),
    ("B-Cell mlp, no CQL", "sbx TQC"),
    ("B-Cell mlp, CQL exact", "d3rlpy CQL"),
    ("B-Cell mlp, CQL by default", "d3rlpy CQL"),
    ("B-Cell portfolio, CQL by default", "d3rlpy CQL"),
    ("B-Cell portfolio, CQL by default, with its batch", "d3rlpy CQL"),
]


class Contender:
    """A worker process; `burst` gives updates per CPU-second."""

    def __init__(self, python: str, module: str, name: str) -> None:
        self.name, self.peak, self.rates = name, 0.0, list[float]()
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", module, name],
            cwd=ROOT, env=os.environ | ONE_THREAD, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._answer()  # ready
        trial = self._burst(10)
        self.updates = max(10, 10 * round(BURST * 10 / trial["cpu"] / 10))  # whole tens

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"benchmark: {self.name} ended; run its line of benchmarks/worker.py by hand to see why")
        return json.loads(line)

    def _burst(self, updates: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{updates}\n")
        return self._answer()

    def run(self) -> None:
        took = self._burst(self.updates)
        self.rates.append(took["updates"] / took["cpu"])
        self.peak = took["peak_mib"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def race(rounds: int, peers: bool, compiled: bool) -> dict[str, Any]:
    """Run `rounds` bursts of every contender; rates, peak memory and ratios within the rounds.

    Those that are compiled take minutes to start, and run where `compiled`.
    """
    from benchmarks.contenders import CONTENDERS

    field = [
        (sys.executable, "benchmarks.contenders", name)
        for name in CONTENDERS
        if compiled or not name.endswith("compiled")
    ]
    if peers:
        names = ("d3rlpy IQL", "d3rlpy CQL", "SB3 SAC", "sb3-contrib TQC", "sbx TQC")
        field += [(str(PEERS_PYTHON), "benchmarks.peers", name) for name in names]
    contenders = {name: Contender(python, module, name) for python, module, name in field}
    try:
        for _ in range(rounds):
            for contender in contenders.values():
                contender.run()
    finally:
        for contender in contenders.values():
            contender.close()
    found = {
        name: {
            "updates_per_cpu_second": float(np.median(c.rates)),
            "fastest_decile": float(np.quantile(c.rates, 0.9)),
            "peak_mib": c.peak,
            "rates": c.rates,
        }
        for name, c in contenders.items()
    }
    ratios: dict[str, Any] = {}
    for ours, theirs in RATIOS:
        if ours in contenders and theirs in contenders:
            each = np.array(contenders[ours].rates) / np.array(contenders[theirs].rates)
            low, middle, high = np.quantile(each, [0.1, 0.5, 0.9])
            ratios[f"{ours} / {theirs}"] = {"median": float(middle), "p10": float(low), "p90": float(high)}
    return {"learners": found, "ratios": ratios}
