"""One training run in several processes, started by torchrun with `hardware=multi_gpu`.

All of them run the same command. The first one writes the run's folder; the others write to temporary folders and
have no output: no sink, no line, no published weights.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import torch
import torch.distributed as dist

from finflow.agents.base import rank
from finflow.artifacts.checkpoints import FOLDER
from finflow.errors import ConfigError
from finflow.schema import ALGORITHMS, Config
from finflow.schema.sections import DirectConfig, Tracking

LAUNCH = "torchrun --standalone --nproc_per_node=2 experiments/{}.py hardware=multi_gpu"


@contextlib.contextmanager
def joined(config: Config, folder: Path | None) -> Generator[Path | None]:
    """Join the other processes; yields the folder to write to, or None for the configured one.

    `folder` is that of a run that is resumed.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    _check(config, count)
    if count == 1:
        yield None
        return
    cuda = torch.cuda.is_available() and config.hardware.device != "cpu"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        with contextlib.ExitStack() as held:
            own = _own_folder(folder, held) if rank() > 0 else None
            dist.barrier()  # the first changes nothing before the others have copied
            yield own
    finally:
        dist.destroy_process_group()


def follow(config: Config, own: Path) -> Config:
    """The configuration of a process but the first: no sinks, and it resumes from the copy `own` of the run folder."""
    resume = config.resume
    if isinstance(resume, str):
        path = Path(resume)
        resume = str(own if path.is_dir() else own / FOLDER / path.name)
    quiet = Tracking(tensorboard=False, sinks=[], wandb=None, close_timeout=1.0)
    return config.model_copy(update={"tracking": quiet, "resume": resume})


def _own_folder(folder: Path | None, held: contextlib.ExitStack) -> Path:
    own = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="finflow-"))) / "run"
    if folder is not None and folder.exists():
        shutil.copytree(folder, own)
    nothing = held.enter_context(open(os.devnull, "w"))  # noqa: SIM115
    held.enter_context(contextlib.redirect_stdout(nothing))
    held.enter_context(contextlib.redirect_stderr(nothing))
    return own


def _check(config: Config, count: int) -> None:
    launch = LAUNCH.format(config.stage if config.stage in ALGORITHMS else "pretrain")
    if config.stage not in ALGORITHMS:
        if count > 1:
            raise ConfigError(f"WORLD_SIZE={count}: {config.stage} runs in one process; start it by python")
        return
    if count > 1 and not config.hardware.distributed:
        raise ConfigError(f"WORLD_SIZE={count}: {count} processes of one run need hardware=multi_gpu: {launch}")
    if count == 1 and config.hardware.distributed and "WORLD_SIZE" not in os.environ:
        raise ConfigError(f"hardware.distributed=true: needs several processes: {launch}")
    if not isinstance(config.algo, DirectConfig) and config.algo.batch_size % count:
        raise ConfigError(f"algo.batch_size={config.algo.batch_size}: should be a multiple of the {count} processes")
