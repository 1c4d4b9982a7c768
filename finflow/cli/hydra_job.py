"""What Hydra does around a job, all but the folder: that is the stage's own to make."""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from finflow.errors import ConfigError
from finflow.io.files import storage_errors

_SECTIONS = {"hydra.yaml": "hydra", "config.yaml": None, "overrides.yaml": "hydra.overrides.task"}
"""Files of `hydra.output_subdir`, and the part of the configuration that each holds; None for what is not Hydra's."""


@contextlib.contextmanager
def hydra_job(cfg: DictConfig, stage: str, folder: Path) -> Generator[None]:
    """Within the block `hydra.job_logging`, `hydra.verbose`, `hydra.job.env_set` and `hydra.callbacks` hold.

    The folder is made beforehand only where something of Hydra's lies in it: `hydra.output_subdir`, or a log.

    Parameters
    ----------
    cfg : a composed configuration with Hydra's own node, which learns of `folder`.

    Raises
    ------
    ConfigError
        If `hydra.output_subdir` is not hidden, or `hydra.job_logging` cannot be set up.
    StorageError
        If the folder cannot be made.
    """
    node = cfg.hydra
    if node.output_subdir is not None and not str(node.output_subdir).startswith("."):
        raise ConfigError(f"hydra.output_subdir={node.output_subdir}: not a hidden folder; write .{node.output_subdir}")
    with read_write(node), open_dict(node):
        node.runtime.output_dir = str(folder.absolute())
        node.job.id, node.job.num = stage, 0
    HydraConfig.instance().set_config(cfg)
    logging: Any = OmegaConf.to_container(node.job_logging, resolve=True) or {}
    if node.output_subdir is not None or any("filename" in one for one in (logging.get("handlers") or {}).values()):
        with storage_errors(folder, "made"):
            folder.mkdir(parents=True, exist_ok=True)
    with env_override(dict(node.job.env_set)):
        try:
            configure_log(node.job_logging, node.verbose)
        except (ValueError, OSError) as error:
            raise ConfigError(f"hydra.job_logging: {error.__cause__ or error}; leave it out") from error
        if node.output_subdir is not None:
            _save(cfg, folder / node.output_subdir)
        callbacks, ended = Callbacks(cfg), JobReturn(cfg=cfg, hydra_cfg=cfg, status=JobStatus.FAILED)
        callbacks.on_run_start(config=cfg, config_name=stage)
        callbacks.on_job_start(config=cfg, task_function=lambda _: None)
        try:
            yield
            ended.status = JobStatus.COMPLETED
        finally:
            callbacks.on_job_end(config=cfg, job_return=ended)
            callbacks.on_run_end(config=cfg, config_name=stage, job_return=ended)


def _save(cfg: DictConfig, folder: Path) -> None:
    with storage_errors(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, section in _SECTIONS.items():
            kept = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            part = kept if section is None else OmegaConf.select(cfg, section)
            (folder / name).write_text(OmegaConf.to_yaml(part if section != "hydra" else {"hydra": part}))
