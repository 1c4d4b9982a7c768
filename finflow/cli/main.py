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
from dataclasses import dataclass, replace
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
from finflow.artifacts.runs import judged_folder, override, typable
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
from finflow.errors import ConfigError, FinFlowError
from finflow.io.files import storage_errors
from finflow.schema import ALGORITHMS, Config
from finflow.sweeps.folder import expanded, follow_parent
from finflow.tracking.sink import end_process, warn


def main(stage: str | None = None) -> NoReturn:
    """Run a command, and end the process.

    Parameters
    ----------
    stage
        One of `finflow.schema.STAGES`; None where the first word of the command line names it.
    """
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
    line = read_line(argv)
    several, (overrides, notes) = line.several, current_names(expanded(line.overrides))
    for note in notes:
        warn(note)
    overrides = with_plugins(overrides)
    if line.prints:
        show(stage, replace(line, overrides=overrides))
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
    with _placed(cfg, config, overrides) as (config, folder), hydra_job(cfg, stage, folder):
        result = COMMANDS[stage].run(config, Path(shown(folder)))
        if result is not None:
            print(f"Run folder: {shown(result.run_dir)}\nNext: {typable(result.next_command)}", flush=True)
    return 0


def _console(words: Sequence[str]) -> int:
    """`finflow STAGE ...`."""
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
def _placed(cfg: DictConfig, config: Config, overrides: Sequence[str]) -> Generator[tuple[Config, Path]]:
    """What a process runs, and the folder for it: of several processes of one run, each but the first has its own."""
    typed = check_folder(cfg, overrides, resume=config.resume is not None)
    folder = typed
    if config.resume is not None:
        from finflow.stages.run import resumed_folder

        folder = resumed_folder(config, typed)
    if "WORLD_SIZE" not in os.environ and not config.hardware.distributed:
        yield config, folder or Path(str(cfg.hydra.run.dir))
        return
    from finflow.stages.torchrun import follow, joined

    with joined(config, folder if config.resume is not None else None) as own:
        if own is not None:
            config, folder = follow(config, own), own
        yield config, folder or Path(str(cfg.hydra.run.dir))


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


@dataclass(frozen=True)
class CommandLine:
    """A command line.

    Attributes
    ----------
    overrides : its `key=value`, those that stand for `--config-dir` and `--config-name` first.
    several : whether it asks for several runs by `-m`.
    flags : as Hydra's parser has read them.
    """

    overrides: list[str]
    several: bool
    flags: argparse.Namespace

    @property
    def prints(self) -> bool:
        """Whether Hydra shall print something, and no stage run."""
        flags = self.flags
        return bool(flags.cfg or flags.info or flags.hydra_help or flags.shell_completion or flags.resolve)


class _Parser:
    """Hydra's parser, its errors as `ConfigError`."""

    def __init__(self) -> None:
        self.hydra = get_args_parser()
        self.hydra.allow_abbrev = False
        self.hydra.error = self._refuse

    def _refuse(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --hydra-help lists the flags")


def read_line(argv: Sequence[str]) -> CommandLine:
    """Read the flags and overrides of a command line, in whatever order.

    Raises
    ------
    ConfigError
        For a flag that is none, or lacks its value.
    """
    # `--info` may stand alone: what follows it is its value only where it is none of the overrides.
    following = [*argv[1:], "="]
    words = ["--info=all" if a in _INFO and "=" in b else a for a, b in zip(argv, following, strict=False)]
    flags, unknown = _Parser().hydra.parse_known_intermixed_args(words)
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
    return CommandLine([*own, *overrides], flags.multirun, flags)


def show(stage: str, line: CommandLine) -> None:
    """Have Hydra print what the flags ask for: a configuration, what it is made of, its help, a shell's completion.

    Raises
    ------
    ConfigError
        If the flags do not go together, or the configuration cannot be composed.
    """
    flags, parser = line.flags, _Parser().hydra
    asked = [name for name in ("cfg", "info", "hydra_help", "shell_completion", "multirun") if getattr(flags, name)]
    if flags.resolve and flags.cfg is None:
        raise ConfigError("--resolve: read with --cfg alone; add --cfg job, or leave it out")
    if len(asked) > 1:
        both = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise ConfigError(f"{both}: do not go together; leave out one")
    folder, name, words = primary(stage, line.overrides)
    if flags.cfg or flags.info:
        cfg = compose_stage(stage, line.overrides, with_hydra=True)
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
                hydra.hydra_help(None, parser, argparse.Namespace(overrides=[]))
            else:
                hydra.shell_completion(name, words)
    except OmegaConfBaseException as error:
        raise ConfigError(resolve_message(error)) from error
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{one_line(error)}; --hydra-help explains the flags") from error


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


def judged(output_root: str, stage: str, run: str | int | Sequence[Any]) -> str:
    """`outputs/<stage>/<name of the run>/<stamp>-s<seed of the run>`."""
    named = [str(one) for one in run] if not isinstance(run, str | int) else str(run)
    try:
        return str(judged_folder(output_root, stage, named))
    except FinFlowError:  # the stage itself says, in its own words, what is wrong with `run`
        return run_folder(output_root, stage, "unknown", 0)


def swept(output_root: str, named: str | int) -> str:
    """The folder that `dir` names."""
    from finflow.stages.sweep import sweep_folder

    try:
        return str(sweep_folder(output_root, str(named)))
    except FinFlowError:  # the stage itself says, in its own words, what is wrong with `dir`
        return run_folder(output_root, "sweep", "unknown", 0)


OmegaConf.register_new_resolver("finflow_judged", judged, replace=True, use_cache=True)
OmegaConf.register_new_resolver("finflow_swept", swept, replace=True, use_cache=True)
