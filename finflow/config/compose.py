"""Composing a stage's configuration from `conf/` and a command line, parsing it, and a run's `config.yaml`.

`parse` turns a composed config into the frozen objects of `schema` and refuses, in one line that names the key, the
value and the choices, whatever the schema does not know. Nothing after it sees OmegaConf. A `config.yaml` of the
version before is brought up to date when it is read.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from finflow.config.overrides import (
    CONF_DIR,
    NO_ENVIRONMENT,
    compose_message,
    conf_dirs,
    config_name_of,
    current_names,
    one_line,
    plugins_of,
    refuse_unread,
    resolve_message,
    validation_message,
)
from finflow.errors import ConfigError
from finflow.io.files import flatten
from finflow.plugins import conf_of, load_plugins, search, unknown
from finflow.schema import ADDED, ALGORITHMS, READS, RENAMED, STAGES, Config, algorithms_of


def load(stage: str, overrides: Sequence[str] = ()) -> Config:
    """Compose and parse the configuration of `stage`, as its entry point would.

    Parameters
    ----------
    overrides : texts `key=value`, as on the command line.

    Raises
    ------
    ConfigError
        Naming the key, its value and the choices.
    """
    words = cast("Sequence[object]", overrides)
    if isinstance(words, str | Mapping) or not all(isinstance(one, str) for one in words):
        raise ConfigError(f'overrides={overrides!r:.80}: should be a list of texts, for example ["env=csv", "seed=1"]')
    current, notes = current_names(overrides)
    for note in notes:
        warnings.warn(note, DeprecationWarning, stacklevel=2)
    return parse(compose_stage(stage, with_plugins(current)))


def with_plugins(overrides: Sequence[str]) -> list[str]:
    """Load the plugins that a command line or its preset names; their options are among its own from here on.

    Raises
    ------
    ConfigError
        If one cannot be loaded.
    """
    folders = conf_dirs(overrides)[1:]
    search(folders)
    names = plugins_of(overrides)
    load_plugins(names)
    more = [folder for folder in conf_of(names) if folder not in folders]
    if not more:
        return list(overrides)
    quoted = ",".join(f'"{folder.absolute()}"' for folder in [*folders, *more])
    return [f"hydra.searchpath=[{quoted}]", *(text for text in overrides if not text.startswith("hydra.searchpath="))]


def compose_stage(stage: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """Compose `conf/` for one stage, `with_hydra` with Hydra's own node; its errors become one line."""
    if stage not in STAGES:
        raise ConfigError(f"stage={stage}: no such stage; choose one of {', '.join(STAGES)}")
    refuse_unread(stage, overrides)
    folder, name, words = primary(stage, overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), job_name=stage, version_base="1.3"):
            cfg = compose(name, overrides=words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(compose_message(stage, error, overrides)) from error
    except YAMLError as error:
        raise ConfigError(f"{' '.join(str(error).split())}; mend that file") from error
    if cfg.get("stage") != stage:
        raise ConfigError(f"--config-name={name}: a configuration of {cfg.get('stage')}; name one of {stage}")
    _refuse_undone(cfg, conf_dirs(overrides))
    if not with_hydra:
        with open_dict(cfg):
            del cfg["hydra"]
    return cfg


def _refuse_undone(cfg: DictConfig, folders: Sequence[Path]) -> None:
    """Refuse a chosen ablation that takes nothing away: of what is not there, or with a value that gives it back."""
    chosen = cfg.hydra.runtime.choices.get("ablation")
    file = next((path for folder in folders if (path := folder / "ablation" / f"{chosen}.yaml").is_file()), None)
    if file is None:
        return
    taken, values = (flatten(unresolved(tree)) for tree in (OmegaConf.load(file), cfg))
    for section in {key.rpartition(".")[0] for key in taken if key.count(".") > 1}:  # one that the algorithm nulls
        if {key for key in values if key.startswith(f"{section}.")} <= taken.keys():
            algo = cfg.hydra.runtime.choices.get("algo")
            raise ConfigError(f"ablation={chosen}: algo={algo} has no {section}; leave out one of the two")
    for key in [key for key in taken if key in values and values[key] != taken[key]]:
        typed, meant = (json.dumps(value).strip('"') for value in (values[key], taken[key]))
        raise ConfigError(f"{key}={typed}: ablation={chosen} sets it to {meant}; leave out one of the two")


def primary(stage: str, overrides: Sequence[str]) -> tuple[Path, str, list[str]]:
    """Folder and name of the configuration that a command line begins with, and the overrides for it.

    Raises
    ------
    ConfigError
        If `hydra.job.config_name`, which `--config-name` stands for, names none.
    """
    name = config_name_of(overrides) or stage
    folders = conf_dirs(overrides)
    found = next((folder for folder in folders if (folder / f"{name}.yaml").is_file()), None)
    if found is None:
        raise ConfigError(f"--config-name={name}: no such configuration; name a file of --config-dir, or leave it out")
    if found == CONF_DIR:
        return found, name, list(overrides)
    others = [str(folder.absolute()) for folder in folders if folder != found]  # Hydra looks for it in no other folder
    path = "hydra.searchpath=[" + ",".join(f'"{other}"' for other in others) + "]"
    return found.absolute(), name, [path, *(text for text in overrides if not text.startswith("hydra.searchpath="))]


def parse(cfg: DictConfig) -> Config:
    """Turn a composed config into frozen objects.

    Raises
    ------
    ConfigError
        One line for the first unknown key, missing key, wrong type or value out of range.
    """
    values = plain(cfg)
    stage, algo = str(values.get("stage")), values.get("algo")
    name = str(algo.get("name") if isinstance(algo, dict) else algo)
    named = values.get("plugins", [])
    load_plugins([str(one) for one in (named if isinstance(named, list) else [named])])
    known = [a for phase in ALGORITHMS for a in algorithms_of(phase)]
    if name not in known:
        raise ConfigError(unknown("algo.name", name, known))
    if stage in ALGORITHMS and name not in algorithms_of(stage):
        raise ConfigError(f"algo={name}: not an algorithm of {stage}; choose one of {', '.join(algorithms_of(stage))}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(validation_message(stage, error, values)) from error


def named(config: Config, name: str) -> Config:
    """The same configuration under another name.

    Raises
    ------
    ConfigError
        If it cannot be the name of a folder.
    """
    values = {**config.model_dump(), "name": name}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(validation_message(config.stage, error, values)) from error


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Nested values of a composed config, interpolations resolved, Hydra's own left out.

    Raises
    ------
    ConfigError
        If one is missing or cannot be resolved.
    """
    try:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(resolve_message(error)) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def unresolved(cfg: Any) -> dict[str, Any]:
    """Nested values of a configuration, interpolations as they are written."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))


def run_folder(output_root: str, stage: str, name: str, seed: int) -> str:
    """`outputs/<stage>/<name>/<stamp>-s<seed>`, the folder of one run."""
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")[:-3]
    return str(Path(output_root) / stage / name / f"{stamp}-s{seed}")


def _environment(*_: str) -> str:
    """Stands in for OmegaConf's `oc.env`: what it gave would be written into run folders, secrets included."""
    raise ValueError(NO_ENVIRONMENT)


OmegaConf.register_new_resolver("oc.env", _environment, replace=True)
OmegaConf.register_new_resolver("finflow_run", run_folder, replace=True, use_cache=True)


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
