"""Wrong arguments of the API: one line that names the argument and what is accepted."""

from pathlib import Path

from finflow.errors import ConfigError
from finflow.schema import Config


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
