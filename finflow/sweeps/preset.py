"""Presets in a user's file: `experiment=PATH.yaml` on the command line, or a copy of it in `conf/experiment/`.

A preset holds the differences from the defaults: options of groups, and values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from finflow.artifacts.runs import override, under
from finflow.config.compose import compose_stage, plain
from finflow.config.overrides import PRESETS, group_choices, parse_override
from finflow.errors import ConfigError
from finflow.io.files import atomic_write, flatten
from finflow.schema import READS, Config, role_of
from finflow.schema.fields import Role

_ASIDE = {Role.OUTPUT, Role.SAVING, Role.COMMAND}
"""Roles of keys that a preset leaves out."""


def preset_of(config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    """The preset that changes the defaults of a stage to `config`.

    Parameters
    ----------
    overrides : that made `config`; the options of groups are taken from them, and their keys come first, so that
        what follows from these by interpolation is not written out.

    Returns
    -------
    {"groups": {group: option}, "values": nested values}
    """
    stage = config.stage
    typed = {o.key_or_group: str(o.value()) for o in map(parse_override, overrides)}
    groups = {key: typed[key] for key in group_choices(stage) if key in typed and key not in PRESETS}
    given = flatten(config.model_dump())
    wanted = {k: v for k, v in given.items() if under(k, READS[stage]) and role_of(k) not in _ASIDE}
    lines = [text for text in overrides if text.startswith(("hydra.searchpath=", "plugins="))]
    lines += [f"{key}={option}" for key, option in groups.items()]
    differ = _differing(stage, lines, wanted)
    first = {key: value for key, value in differ.items() if key in typed}
    lines += [override(key, value) for key, value in first.items()]
    values: dict[str, Any] = {"plugins": config.plugins} if config.plugins else {}
    for key, value in (first | _differing(stage, lines, wanted)).items():
        *path, last = key.split(".")
        node = values
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return {"groups": groups, "values": values}


def _differing(stage: str, overrides: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Any]:
    own = flatten(plain(compose_stage(stage, overrides)))
    return {key: value for key, value in wanted.items() if key not in own or own[key] != value}


def write_preset(path: Path, preset: Mapping[str, Any], comment: Sequence[str]) -> None:
    """Write `preset_of`'s result as a preset of Hydra, `comment` above it."""
    lines = ["# @package _global_", *(f"# {line}" for line in comment)]
    defaults = [{f"override /{group}": option} for group, option in preset["groups"].items()]
    content = ({"defaults": defaults} if defaults else {}) | dict(preset["values"])
    atomic_write(path, ("\n".join(lines) + "\n" + yaml.safe_dump(content, sort_keys=False)).encode())


def expanded(overrides: Sequence[str]) -> list[str]:
    """A command line with `experiment=PATH.yaml` replaced by what stands in the file; what is typed wins over it.

    Raises
    ------
    ConfigError
        If the file is missing or no preset.
    """
    found: list[str] = []
    own: list[str] = []
    for text in overrides:
        key, _, value = text.partition("=")
        if key == "experiment" and value.rstrip("\"'").endswith((".yaml", ".yml")):
            own += _read(text, Path(str(parse_override(text).value())))
        else:
            found.append(text)
    typed = {parse_override(text).key_or_group for text in found}
    return [*(text for text in own if text.split("=", 1)[0] not in typed), *found]


def _read(text: str, path: Path) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{text}: cannot be read ({type(error).__name__}); name a preset's file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{text}: no preset; name a file such as a sweep's best.yaml")
    if "hydra" in content:
        raise ConfigError(f"{text}: a preset that sweeps is named, not given as a file; copy it into conf/experiment/")
    groups: list[str] = []
    for entry in content.pop("defaults", None) or []:
        if not isinstance(entry, dict) or not all(str(key).startswith("override /") for key in entry):
            raise ConfigError(f"{text}: defaults: {entry}: write '- override /GROUP: OPTION'")
        groups += [f"{key.removeprefix('override /')}={option}" for key, option in entry.items()]
    return [*groups, *(override(key, value) for key, value in flatten(content).items())]
