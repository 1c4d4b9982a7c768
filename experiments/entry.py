"""The door of every entry point: the command line in, Hydra around, an exit code and two closing lines out.

A command line is composed and parsed before Hydra makes a folder, so that a wrong one leaves nothing behind.
Whatever a user can mend ends in one line on stderr and the exit code of `finflow/errors.py`.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn, Protocol

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from finflow.config import compose_stage, parse
from finflow.config_errors import CONF_DIR, group_choices, resolve_message
from finflow.errors import ConfigError, FinFlowError, Interrupted, StorageError
from finflow.schema import Config
from finflow.sweeps.jobs import follow_parent
from finflow.sweeps.preset import expanded
from finflow.tracking.background_sink import leave
from finflow.training.interrupts import end_at_once
from multirun import params_of, sweep

STORAGE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EMFILE, errno.ENFILE, errno.EPIPE,
}  # fmt: skip
"""Errors of the machine's storage; any other OSError is a fault of the program."""


class Result(Protocol):
    """What the closing lines need of a stage's result."""

    @property
    def run_dir(self) -> Path:
        """Folder that the stage wrote."""
        ...

    @property
    def next_command(self) -> str:
        """Command that a user would run next."""
        ...


Run = Callable[[Config, Path], Result]


def main(stage: str, about: str, examples: Mapping[str, str], run: Run) -> NoReturn:
    """Run one stage from the command line, and end the process.

    Parameters
    ----------
    stage
        Name of the stage, one of `finflow.schema.STAGES`.
    about
        What it does, for `--help`.
    examples
        Overrides worth knowing, and what each is for.
    run
        Does the work in the folder it is given; imports what is slow only when called.
    """
    end_at_once()
    if any(arg in ("-h", "--help") for arg in sys.argv[1:]):
        print(usage(stage, about, examples))
        sys.exit(0)
    leave(guarded(lambda: launch(stage, sys.argv[1:], run)))


def guarded(work: Callable[[], int]) -> int:
    """Exit code of `work`, its failures told in one line, or with a traceback where the fault is FinFlow's."""
    try:
        return work()
    except FinFlowError as error:
        tell(str(error))
        return error.exit_code
    except HydraException as error:
        tell(str(error))
        return ConfigError.exit_code
    except KeyboardInterrupt as error:
        tell(str(error) or "interrupted")
        return error.exit_code if isinstance(error, Interrupted) else 130
    except Exception as error:  # noqa: BLE001  (the last handler: every failure ends in a documented exit code)
        if out_of_memory(error):
            remedy = "lower algo.batch_size or algo.network.hidden_dim, or take hardware=low_memory"
            tell(f"out of memory ({error}); {remedy}")
            return ConfigError.exit_code
        if isinstance(error, OSError) and error.errno in STORAGE:
            tell(f"{error.filename or 'output'}: {error.strerror}; free the place or choose another output_root")
            return StorageError.exit_code
        traceback.print_exc()
        tell("this is a bug of FinFlow; please report it with the lines above and the command that you ran")
        return 70


def out_of_memory(error: Exception) -> bool:
    """Whether more memory was asked for than there is: Python's own error, or torch's on either device."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))
    )


def tell(message: str) -> None:
    """Say on stderr, in one line, what went wrong; a name out of a file cannot steer the terminal."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(message.split()))
    print(f"error: {line}", file=sys.stderr, flush=True)


def launch(stage: str, argv: Sequence[str], run: Run) -> int:
    """Check the command line, then hand it to Hydra: one run, or with `-m` or a preset that sweeps several."""
    follow_parent()
    typed, overrides = read_line(argv)
    overrides = expanded(overrides)
    params = params_of(stage, overrides, typed)
    if params is not None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("WORLD_SIZE: torchrun starts one run, not several; leave out -m")
        return sweep(stage, overrides, params)
    config = parse(compose_stage(stage, overrides))
    if config.sweep.dry_run:
        raise ConfigError("sweep.dry_run=true: read by a sweep alone; add -m, or leave it out")
    wanted = check_folder(stage, overrides, resume=config.resume is not None)
    if config.resume is not None:
        overrides, wanted = resumed(config, overrides, wanted)
    if "WORLD_SIZE" in os.environ or config.hardware.distributed:
        from finflow.stages.torchrun import joined, quiet

        with joined(config, wanted if config.resume is not None else None) as own:
            if own is not None:
                overrides, wanted = into(overrides, own, config.resume)
            return execute(stage, overrides, wanted or Path(config.output_root), lambda c, f: run(quiet(c), f))
    return execute(stage, overrides, wanted or Path(config.output_root), run)


def execute(stage: str, overrides: Sequence[str], place: Path, run: Run) -> int:
    """Have Hydra make the run's folder, at or below `place`, and run the stage in it."""
    kept = nearest_folder(place)
    failures: list[BaseException] = []

    def job(cfg: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            result = run(parse(cfg), Path(shown(folder)))
            print(f"Run folder: {shown(result.run_dir)}\nNext: {result.next_command}", flush=True)
        except BaseException as error:  # noqa: BLE001  (raised below, past what Hydra would say of it)
            remove_empty(folder, kept)
            failures.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out as they are
    sys.argv[1:] = list(overrides)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=stage)(job)()
    except OSError as error:
        if not failures:
            raise StorageError(f"{error.filename}: {error.strerror}; choose another output_root") from error
    if failures:
        raise failures[0]
    return 0


def resumed(config: Config, overrides: Sequence[str], typed: Path | None) -> tuple[list[str], Path]:
    """The command line of a run that goes on in the folder of an earlier one, and that folder."""
    from finflow.stages.run_directory import resumed_folder

    folder = resumed_folder(config, typed)
    assert folder is not None
    return into(overrides, folder)


def into(overrides: Sequence[str], folder: Path, resume: str | bool | None = None) -> tuple[list[str], Path]:
    """The command line of a run in `folder`, and that folder, which may be a copy of the one that `resume` names."""
    from finflow.artifacts.checkpoints import FOLDER
    from finflow.artifacts.commands import override

    typed = {"hydra.run.dir": folder}
    if isinstance(resume, str):
        path = Path(resume)
        typed["resume"] = folder if path.is_dir() else folder / FOLDER / path.name
    kept = [text for text in overrides if text.partition("=")[0] not in typed]
    return [*kept, *(override(key, value) for key, value in typed.items())], folder


def read_line(argv: Sequence[str]) -> tuple[bool, list[str]]:
    """Split a command line into its one flag and its overrides."""
    flags = {arg for arg in argv if arg.startswith("-")}
    unknown = sorted(flags - {"-m", "--multirun"})
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such flag; write key=value, -m for several runs, or --help")
    return bool(flags), [arg for arg in argv if arg not in flags]


def check_folder(stage: str, overrides: Sequence[str], *, resume: bool) -> Path | None:
    """Folder asked for by `hydra.run.dir`; refused where it holds anything, unless a run is to go on there."""
    for text in overrides:
        if text.startswith("hydra.sweep."):
            raise ConfigError(f"{text}: read with -m alone; write hydra.run.dir=DIR")
    if not any(text.startswith("hydra.run.dir=") for text in overrides):
        return None
    try:
        typed = str(compose_stage(stage, overrides, with_hydra=True).hydra.run.dir)
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


def nearest_folder(path: Path) -> Path:
    """`path` itself or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def remove_empty(folder: Path, kept: Path) -> None:
    """Take back the empty folders that were made for a run that wrote nothing, up to `kept`."""
    while kept in folder.parents and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)


def figures(values: Mapping[str, float | None]) -> str:
    """Named figures in one line; a dash is an undefined value."""
    return ", ".join(f"{name} {'-' if value is None else format(value, '.4g')}" for name, value in values.items())


def timing(folder: Path) -> str:
    """Wall-clock seconds of a run by phase, from its `run.json`, in one line."""
    from finflow.artifacts.names import RUN
    from finflow.io.files import read_json

    record = read_json(folder / RUN)
    begin, end = (datetime.fromisoformat(record[name]) for name in ("started", "finished"))
    whole = (end - begin).total_seconds()
    phases = record["seconds"] | {"rest": max(whole - sum(record["seconds"].values()), 0.0)}
    since = " since it was resumed" if record.get("resumed") else ""
    return f"Seconds{since}: {', '.join(f'{name} {s:.1f}' for name, s in phases.items())}; in all {whole:.1f}"


def usage(stage: str, about: str, examples: Mapping[str, str]) -> str:
    """Text of `--help`: what the stage does, its groups with their options, and keys worth knowing."""
    chosen = compose_stage(stage, with_hydra=True).hydra.runtime.choices
    lines = [f"python experiments/{stage}.py [key=value ...] [-m]", "", about, "", "Groups (* is the default):"]
    for group, options in group_choices(stage).items():
        marked = ", ".join(f"{option}*" if option == chosen.get(group) else option for option in options)
        lines.append(f"  {group:<15} {marked}")
    lines += ["", "Keys used most:", *(f"  {key:<40} {reason}" for key, reason in examples.items())]
    lines += ["", "-m runs every combination of values written as seed=0,1,2; quote 'seed=range(5)' for the shell."]
    return "\n".join([*lines, "All keys and their values: conf/base.yaml and the folders beside it."])
