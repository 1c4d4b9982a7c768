"""Hydra's flags: a command line read with them, and those that print something instead of running a stage."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finflow.artifacts.runs import override
from finflow.config.compose import compose_stage, primary
from finflow.config.overrides import one_line, resolve_message
from finflow.errors import ConfigError

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
