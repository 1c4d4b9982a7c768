"""From a command line to a stage: composed and parsed once, then run; the stage itself makes its folder.

Whatever a user can mend ends in one line on stderr and the exit code of `finflow/errors.py`.
"""

import contextlib
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from finflow import __version__
from finflow.artifacts.runs import typable
from finflow.cli import folders as folders  # registers the resolvers of run folders
from finflow.cli.commands import COMMANDS, overview, usage
from finflow.cli.errors import end_at_once, exit_code
from finflow.cli.flags import read_line, show
from finflow.cli.hydra_job import hydra_job
from finflow.cli.stages import shown
from finflow.cli.sweep import params_of, sweep
from finflow.config.compose import compose_stage, parse, with_plugins
from finflow.config.overrides import current_names, parse_override, resolve_message
from finflow.errors import ConfigError
from finflow.schema import ALGORITHMS, Config
from finflow.sweeps.jobs import follow_parent
from finflow.sweeps.preset import expanded
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
        from finflow.stages.run_directory import resumed_folder

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
