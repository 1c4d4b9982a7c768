"""Where one update of each phase spends its time and memory: `make profile`, with settings in ARGS.

Writes `outputs/profile/PHASE.json`, a trace for chrome://tracing or ui.perfetto.dev, and `PHASE.txt`, the table that it
also prints: operators by their own time, memory that they allocate, and the peak of the process.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import finflow
from benchmarks.contenders import updates_of
from benchmarks.worker import peak_mib
from finflow.envs.collect import collect
from finflow.errors import FinFlowError
from finflow.nn.networks import build_networks
from finflow.schema import Config
from finflow.schema.sections import BCellConfig, IQLConfig
from finflow.stages.prepare import computing_of, fit, load_market, use_hardware
from finflow.training.replay_buffer import ReplayBuffer

WARM, UPDATES, ROWS, EPISODES = 5, 10, 25, 20
DEFAULTS = {"pretrain": ["algo=iql"], "finetune": ["algo=bcell", "init.weights=null"]}


def update_of(config: Config) -> Callable[[], Any]:
    """One update of the phase that `config` is of, its batch included."""
    device = use_hardware(config.hardware)
    prepared, algo = fit(config, load_market(config), device), config.algo
    assert isinstance(algo, IQLConfig | BCellConfig)
    networks = build_networks(prepared.spec, algo.network, 0, device, computing_of(config.hardware))
    data = collect(prepared.market, prepared.world, prepared.fold.train, EPISODES, 200, 0.0, 0, {})
    draw, update = updates_of(config, prepared, networks, algo, ReplayBuffer.of(data, device), with_batch=True)

    def work() -> None:
        with record_function("batch"):
            batch = draw()
        with record_function("update"):
            update(batch)

    return work


def profiled(stage: str, changes: Sequence[str], folder: Path) -> str:
    """Profile one phase; writes the trace and returns the table."""
    work = update_of(finflow.load(stage, [*DEFAULTS[stage], *changes]))
    for _ in range(WARM):
        work()
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    folder.mkdir(parents=True, exist_ok=True)
    with profile(activities=activities, profile_memory=True, record_shapes=True) as seen:
        for _ in range(UPDATES):
            work()
    seen.export_chrome_trace(str(folder / f"{stage}.json"))
    own = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table = seen.key_averages().table(sort_by=own, row_limit=ROWS, max_name_column_width=40)
    peak = f"Peak memory of the process: {peak_mib():.0f} MiB"
    if cuda:
        peak += f"; of the device: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
    return f"{stage}: {UPDATES} updates, each with its batch\n{table}{peak}\n"


def main(changes: Sequence[str]) -> int:
    """Profile both phases."""
    folder = Path("outputs/profile")
    try:
        for stage in DEFAULTS:
            text = profiled(stage, changes, folder)
            (folder / f"{stage}.txt").write_text(text)
            print(text)
    except FinFlowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"Traces: {folder}/pretrain.json and finetune.json, for chrome://tracing or ui.perfetto.dev")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
