"""Arguments of the API and the file that `out` names, checked before any work: one line for what is wrong."""

from pathlib import Path

from finflow.errors import ConfigError
from finflow.schema import ALGORITHMS, Config, algorithms_of


def check_config(config: object, stage: str) -> None:
    """Refuse what is no configuration of `stage`.

    Raises
    ------
    ConfigError
        Naming the argument and where to take one from.
    """
    take = f'take finflow.load("{stage}", [...])'
    if not isinstance(config, Config):
        raise ConfigError(f"config={config!r:.80}: no configuration; {take}")
    if config.stage != stage:
        raise ConfigError(f"config: made for {config.stage}; {take}")
    if stage in ALGORITHMS and config.algo.name not in algorithms_of(stage):
        choices = ", ".join(algorithms_of(stage))
        raise ConfigError(f"algo={config.algo.name}: not an algorithm of {stage}; choose one of {choices}")


def check_arguments(config: object, stage: str, run_dir: object) -> Path | None:
    """Check the configuration of a stage and its folder, which may be a text; returns the folder.

    Raises
    ------
    ConfigError
        Naming the argument that is wrong.
    """
    check_config(config, stage)
    if not isinstance(run_dir, str | Path | None):
        raise ConfigError(f"run_dir={run_dir!r:.80}: no path; name a new folder")
    return None if run_dir is None else Path(run_dir)


def out_file(out: str) -> Path:
    """The file to write; its folder need not exist yet.

    Raises
    ------
    ConfigError
        If it is a folder, or would lie in a file.
    """
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"out={out}: a folder; name a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"out={out}: {above} is a file; name another folder")
    return path
