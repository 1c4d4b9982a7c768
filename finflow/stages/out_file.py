"""The file that `out` names, checked before any work."""

from pathlib import Path

from finflow.errors import ConfigError


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
