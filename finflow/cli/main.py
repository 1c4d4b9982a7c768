"""From a command line to a stage: composed and parsed once, then run; the stage itself makes its folder.

A line is read with Hydra's flags, some of which print something instead of running a stage. Hydra does what it does
around a job, all but the folder. Whatever a user can mend ends in one line on stderr and the exit code of
`finflow/errors.py`.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from finflow import __version__
from finflow.artifacts.runs import override, typable
from finflow.cli.commands import COMMANDS, overview, shown, usage
from finflow.cli.errors import end_at_once, exit_code
from finflow.cli.sweep import params_of, sweep
from finflow.config.compose import (
    compose_stage,
    current_names,
    one_line,
    parse,
    parse_override,
    primary,
    resolve_message,
    run_folder,
    with_plugins,
)
from finflow.errors import ConfigError
from finflow.io.files import storage_errors
from finflow.schema import ALGORITHMS, Config
from finflow.sweeps.folder import expanded, follow_parent
from finflow.tracking.sink import end_process, warn


def main(stage: str | None = None) -> NoReturn:
    """Run `stage`, or where it is None the command that the first word of the line names, and end the process."""
    end_at_once()
    try:
        code = launch(stage, sys.argv[1:]) if stage is not None else _console(sys.argv[1:])
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (every failure ends in its exit code)
        code = exit_code(error)
    end_process(code)


def launch(stage: str, argv: Sequence[str]) -> int:
    """Run a stage once, or with `-m` or a preset that sweeps several times; returns the exit code."""
    follow_parent()
    if any(arg in ("-h", "--help") for arg in argv):
        typed = read_line([arg for arg in argv if arg not in ("-h", "--help")]).overrides
        print(usage(stage, with_plugins(typed)))
        return 0
    flags = read_line(argv)
    several, (overrides, notes) = flags.multirun, current_names(expanded(flags.overrides))
    for note in notes:
        warn(note)
    overrides = with_plugins(overrides)
    if flags.cfg or flags.info or flags.hydra_help or flags.shell_completion or flags.resolve:
        show(stage, overrides, flags)
        return 0
    if several or any(parse_override(text).is_sweep_override() for text in overrides):
        params = params_of(stage, overrides, several)
        if params is not None:
            return _sweep(stage, overrides, params)
    cfg = compose_stage(stage, overrides, with_hydra=True)
    if cfg.hydra.mode is RunMode.MULTIRUN and stage != "look":
        return _sweep(stage, overrides, params_of(stage, overrides, several) or {})
    config = parse(cfg)
    if config.sweep.dry_run:
        raise ConfigError("sweep.dry_run=true: read by a sweep alone; add -m, or leave it out")
    with _placed(cfg, config, overrides) as (config, placed), hydra_job(cfg, stage, placed) as folder:
        result = COMMANDS[stage].run(config, folder)
        if result is not None:
            print(f"Run folder: {shown(result.run_dir)}\nNext: {typable(result.next_command)}", flush=True)
    return 0


def _console(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else ConfigError.exit_code
    if words[0] == "--version":
        print(f"finflow {__version__}")
        return 0
    if words[0] in ("-sc", "--shell-completion"):  # a shell knows the program alone: the line so far names the stage
        program, *typed = os.environ.get("COMP_LINE", "").split(" ")
        stage, *rest = typed or [""]
        if stage in COMMANDS and rest:
            os.environ["COMP_LINE"] = " ".join([program, *rest])
            return launch(stage, words)
        if any(word.startswith("query=") for word in words):
            print(" ".join(name for name in COMMANDS if name.startswith(stage)))
            return 0
        return launch("finetune", words)
    if words[0] not in COMMANDS:
        raise ConfigError(f"{words[0]}: no such command; choose one of {', '.join(COMMANDS)}")
    return launch(words[0], words[1:])


def _sweep(stage: str, overrides: Sequence[str], params: dict[str, str]) -> int:
    if stage not in ALGORITHMS:
        raise ConfigError(f"-m: {stage} runs once; only {' and '.join(ALGORITHMS)} can be swept; leave it out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("WORLD_SIZE: torchrun starts one run, not several; leave out -m")
    return sweep(stage, overrides, params)


@contextlib.contextmanager
def _placed(cfg: DictConfig, config: Config, overrides: Sequence[str]) -> Generator[tuple[Config, Path | None]]:
    """What a process runs, and its folder, None where the stage names it after the run that it judges.

    Of several processes of one run, each but the first has a folder of its own.
    """
    folder = check_folder(cfg, overrides, resume=config.resume is not None)
    resumed = None
    if config.resume is not None:
        from finflow.stages.run import resumed_folder

        folder = resumed = resumed_folder(config, folder)
    with contextlib.ExitStack() as held:
        if "WORLD_SIZE" in os.environ or config.hardware.distributed:
            from finflow.stages.torchrun import follow, joined

            own = held.enter_context(joined(config, resumed))
            if own is not None:
                config, folder = follow(config, own), own
        named = str(cfg.hydra.run.dir)
        yield config, folder or (Path(named) if named else None)


def check_folder(cfg: DictConfig, overrides: Sequence[str], *, resume: bool) -> Path | None:
    """Folder asked for by `hydra.run.dir`; refused where it holds anything, unless a run is to go on there."""
    for text in overrides:
        if text.startswith("hydra.sweep."):
            raise ConfigError(f"{text}: read with -m alone; write hydra.run.dir=DIR")
    if not any(text.startswith("hydra.run.dir=") for text in overrides):
        return None
    try:
        typed = str(cfg.hydra.run.dir)
    except OmegaConfBaseException as error:
        raise ConfigError(resolve_message(error)) from error
    folder = Path(typed)
    if not typed.strip():
        raise ConfigError("hydra.run.dir='': should not be empty; name a new folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"hydra.run.dir={typed}: a file; name a new folder")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"hydra.run.dir={typed}: not empty; name a new folder, or add resume=true to go on in it")
    return folder


_INFO = ("-i", "--info")
_REFUSED = {
    "config_path": "--config-path: the configurations of FinFlow are always read; add your own with --config-dir=DIR",
    "experimental_rerun": "--experimental-rerun: reads a pickle; go on with resume=DIR, or name the run's values",
}


def _hydra_parser() -> argparse.ArgumentParser:
    """Hydra's parser, its errors as `ConfigError`."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --hydra-help lists the flags")

    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = refuse
    return parser


def read_line(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags of a command line, and its `overrides`: first those that stand for `--config-dir` and `-name`."""
    # `--info` may stand alone: what follows it is its value only where it is none of the overrides.
    following = [*argv[1:], "="]
    words = ["--info=all" if a in _INFO and "=" in b else a for a, b in zip(argv, following, strict=False)]
    flags, unknown = _hydra_parser().parse_known_intermixed_args(words)
    overrides: list[str] = flags.overrides
    for word in [*unknown, *overrides]:
        if word.startswith("-"):
            raise ConfigError(f"{word}: no such flag; write key=value, -m for several runs, or --help")
    for name, reason in _REFUSED.items():
        if getattr(flags, name) is not None:
            raise ConfigError(reason)
    if flags.package is not None and flags.cfg is None:
        raise ConfigError(f"--package={flags.package}: read with --cfg alone; add --cfg job, or leave it out")
    own: list[str] = []
    if flags.config_dir is not None:
        folder = Path(flags.config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir={flags.config_dir}: no such folder; name one with groups such as env/")
        if any(word.startswith("hydra.searchpath=") for word in overrides):
            raise ConfigError("hydra.searchpath: says what --config-dir says; write all folders there")
        own.append(override("hydra.searchpath", [folder]))
    if flags.config_name is not None:
        own.append(override("hydra.job.config_name", flags.config_name))
    flags.overrides = [*own, *overrides]
    return flags


def show(stage: str, overrides: Sequence[str], flags: argparse.Namespace) -> None:
    """Have Hydra print what the flags ask for: a configuration, what it is made of, its help, a shell's completion."""
    asked = [name for name in ("cfg", "info", "hydra_help", "shell_completion", "multirun") if getattr(flags, name)]
    if flags.resolve and flags.cfg is None:
        raise ConfigError("--resolve: read with --cfg alone; add --cfg job, or leave it out")
    if len(asked) > 1:
        both = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise ConfigError(f"{both}: do not go together; leave out one")
    folder, name, words = primary(stage, overrides)
    if flags.cfg or flags.info:
        cfg = compose_stage(stage, overrides, with_hydra=True)
        if flags.package not in (None, "_global_") and OmegaConf.select(cfg, flags.package) is None:
            raise ConfigError(f"--package={flags.package}: no such part of the configuration; --cfg job shows them")
    try:
        with initialize_config_dir(str(folder), job_name=stage, version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            if flags.cfg:
                hydra.show_cfg(name, words, flags.cfg, flags.package, flags.resolve)
            elif flags.info:
                hydra.show_info(flags.info, name, words)
            elif flags.hydra_help:
                hydra.hydra_help(None, _hydra_parser(), argparse.Namespace(overrides=[]))
            else:
                hydra.shell_completion(name, words)
    except OmegaConfBaseException as error:
        raise ConfigError(resolve_message(error)) from error
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{one_line(error)}; --hydra-help explains the flags") from error


@contextlib.contextmanager
def hydra_job(cfg: DictConfig, stage: str, folder: Path | None) -> Generator[Path | None]:
    """Within the block `hydra.job_logging`, `hydra.verbose`, `hydra.job.env_set` and `hydra.callbacks` hold.

    Yields the folder, which Hydra's node learns of. It is named and made beforehand only where something of Hydra's
    lies in it: `hydra.output_subdir`, or a log.
    """
    node = cfg.hydra
    if node.output_subdir is not None and not str(node.output_subdir).startswith("."):
        raise ConfigError(f"hydra.output_subdir={node.output_subdir}: not a hidden folder; write .{node.output_subdir}")
    logging: Any = OmegaConf.to_container(node.job_logging) or {}
    if node.output_subdir is not None or any("filename" in one for one in (logging.get("handlers") or {}).values()):
        folder = folder or Path(run_folder(cfg.output_root, stage, cfg.name, cfg.seed))
        with storage_errors(folder, "made"):
            folder.mkdir(parents=True, exist_ok=True)
    with read_write(node), open_dict(node):
        node.runtime.output_dir = str((folder or Path(cfg.output_root)).absolute())
        node.job.id, node.job.num = stage, 0
    HydraConfig.instance().set_config(cfg)
    with env_override(dict(node.job.env_set)):
        try:
            configure_log(node.job_logging, node.verbose)
        except (ValueError, OSError) as error:
            raise ConfigError(f"hydra.job_logging: {error.__cause__ or error}; leave it out") from error
        if folder is not None and node.output_subdir is not None:
            _save(cfg, folder / node.output_subdir)
        callbacks, ended = Callbacks(cfg), JobReturn(cfg=cfg, hydra_cfg=cfg, status=JobStatus.FAILED)
        callbacks.on_run_start(config=cfg, config_name=stage)
        callbacks.on_job_start(config=cfg, task_function=lambda _: None)
        try:
            yield folder
            ended.status = JobStatus.COMPLETED
        finally:
            callbacks.on_job_end(config=cfg, job_return=ended)
            callbacks.on_run_end(config=cfg, config_name=stage, job_return=ended)


def _save(cfg: DictConfig, folder: Path) -> None:
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    hydra = OmegaConf.masked_copy(cfg, "hydra")
    with storage_errors(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("config", own), ("hydra", hydra), ("overrides", cfg.hydra.overrides.task)):
            (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(part))
