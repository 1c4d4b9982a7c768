"""One contender in a process of its own: `python -m benchmarks.worker MODULE NAME`, driven by lines on stdin.

A line with a number asks for a burst of so many updates; the answer is a line of JSON with their CPU and wall time,
and the peak memory of the process so far. The first answer says that the contender is built and warm.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
"""Environment of a worker, set by whoever starts it."""

Burst = Callable[[int], None]


def peak_mib() -> float:
    """Most memory that this process has held, MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    module, name = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    base = peak_mib()
    build: Callable[[], Burst] = import_module(module).CONTENDERS[name]
    burst = build()
    burst(10)
    print(json.dumps({"ready": name, "start_mib": base}), file=answers)
    for line in sys.stdin:
        updates = int(line)
        cpu, wall = time.process_time(), time.perf_counter()
        burst(updates)
        took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({"updates": updates, **took, "peak_mib": peak_mib()}), file=answers)


if __name__ == "__main__":
    main()
