"""A run's `config.yaml`: written, read back, and brought up to date where the version before wrote it."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from finflow.config.compose import compose_stage, parse, unresolved
from finflow.config.refusals import one_line
from finflow.errors import ConfigError
from finflow.schema import ADDED, READS, RENAMED, STAGES, Config


def to_yaml(config: Config) -> str:
    """YAML of a parsed config, as written to a run folder; read back by `from_yaml`."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))


def from_yaml(path: Path) -> Config:
    """Read a run folder's `config.yaml`.

    Raises
    ------
    ConfigError
        If the file is missing or is not a FinFlow configuration.
    """
    cfg = _read(path)
    try:
        return parse(_completed(cfg))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _completed(cfg: DictConfig) -> DictConfig:
    """With today's values of the keys that it lacks and its own stage does not read, which later versions added."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    stage = plain.get("stage") if isinstance(plain, dict) else None
    missing = [key for key in Config.model_fields if key not in cfg]
    if stage not in STAGES or not missing:
        return cfg
    read = {key.split(".")[0] for key in READS[stage]}
    own = compose_stage(stage, [])
    return OmegaConf.merge({key: own[key] for key in missing if key not in read}, cfg)  # pyright: ignore[reportReturnType]


def plain_yaml(path: Path) -> dict[str, Any]:
    """Content of a run folder's `config.yaml` as it stands, nothing looked up.

    Raises
    ------
    ConfigError
        If the file is missing or is not a FinFlow configuration.
    """
    return unresolved(_read(path))


def up_to_date(values: dict[str, Any]) -> dict[str, Any]:
    """The nested `values` of a configuration that the version before wrote, with the keys of today."""
    for old, new in RENAMED.items():
        section, name = _section_of(values, old), old.rpartition(".")[2]
        if section is not None and name in section:
            section[new.rpartition(".")[2]] = section.pop(name)
    for key, value in ADDED.items():
        section = _section_of(values, key)
        if section is not None:
            section.setdefault(key.rpartition(".")[2], list(value))
    return values


def _section_of(values: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The section of `values` that a dotted key lies in; None where there is none."""
    section: Any = values
    for part in key.split(".")[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None


def _read(path: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(path)
    except (OSError, OmegaConfBaseException, RecursionError, ValueError, YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({one_line(error)}); name a run folder of FinFlow") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{path}: not a FinFlow configuration; name a run folder of FinFlow")
    return OmegaConf.create(up_to_date(unresolved(cfg)))
