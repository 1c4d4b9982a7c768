"""Command lines for messages and closing lines: a stage with the settings of a run."""

import re
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from finflow.artifacts.names import CONFIG
from finflow.config.compose import load
from finflow.config.files import from_yaml, plain_yaml
from finflow.config.overrides import CONF_DIR
from finflow.config.refusals import MISSING
from finflow.errors import ConfigError
from finflow.io.files import flatten
from finflow.plugins import folders_used
from finflow.schema import ALGORITHMS, READS, Config, role_of
from finflow.schema.env import OWN_SOURCES
from finflow.schema.roles import CARRIED, Role

_DATA = {Role.DATA, Role.FILE, Role.MARKET, Role.ENVIRONMENT, Role.OUTPUT}
"""Roles of keys that are kept when a run of an earlier version is trained again."""

_OPTIONS = {"yahoo": "dow30"}
"""Source -> option of the group `env`, where the names differ."""

_DEMO = flatten(yaml.safe_load((CONF_DIR / "experiment" / "demo.yaml").read_text()))

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
# Bare, these would be read as a float, null, a bool; a whole number reads back as the text that it was.
_OTHER = re.compile(r"(?![1-9]\d*$)-?[\d_.]+(e-?\d+)?|null|true|false|nan|-?inf", re.IGNORECASE)

_MODULE = ("finflow", "__main__.py")
_BEFORE_QUOTE = re.compile(r'(\\+)(?="|$)')


def command_for(stage: str, config: Config, values: Mapping[str, Any] | None = None) -> str:
    """Command for `stage` whose data, folds, budgets and network are those of `config`.

    Parameters
    ----------
    config : of a run of any stage.
    values : what the command shall say besides, by key, for example `{"run": folder}`; quoted here.

    Returns
    -------
    For example `python experiments/pretrain.py experiment=demo env=csv env.path=prices.csv`.
    """
    return _command(stage, flatten(config.model_dump()), CARRIED, values or {})


def _command(stage: str, wanted: Mapping[str, Any], roles: Collection[Role], values: Mapping[str, Any]) -> str:
    """Command that sets those keys of `wanted` that have one of `roles`, where the stage's own values differ."""
    base: list[str] = []
    own = flatten(load(stage).model_dump())
    if stage in ALGORITHMS:
        if _DEMO.items() <= wanted.items():
            base.append("experiment=demo")
        if wanted.get("plugins"):
            base.append(override("plugins", wanted["plugins"]))
        source = wanted["env.source"]
        if source != own["env.source"]:
            option = [f"env={_OPTIONS.get(source, source)}"]
            base += option if source in OWN_SOURCES else ["env=csv", override("env.source", source)]
            if wanted["env.path"] is not None:
                base.append(override("env.path", wanted["env.path"]))
        if base:
            own = flatten(load(stage, base).model_dump())
    differing = {
        key: wanted[key]
        for key, value in own.items()
        if key in wanted and wanted[key] != value and role_of(key) in roles and under(key, READS[stage])
    }
    return command_line(stage, [*base, *(override(*each) for each in {**differing, **values}.items())])


def stored_config(folder: Path) -> Config:
    """The configuration of a run folder.

    Raises
    ------
    ConfigError
        If it cannot be read; of a run of an earlier version, which lacks keys, with the command that trains it again.
    """
    try:
        return from_yaml(folder / CONFIG)
    except ConfigError as error:
        again = _again(folder / CONFIG) if MISSING in str(error) else None
        if again is None:
            raise
        raise ConfigError(f"{folder}: made by an earlier version of FinFlow; train it again: {again}") from error


def _again(path: Path) -> str | None:
    """Command of the stage that wrote `path`, on its data; budgets and methods are today's."""
    stored = flatten(plain_yaml(path))
    try:
        return _command(stored["stage"], stored, _DATA, {})
    except (KeyError, ConfigError):
        return None


def command_under(stage: str, output_root: str | Path) -> str:
    """Command for `stage` with its own settings, under `output_root`."""
    own = load(stage).output_root
    return command_line(stage, [] if str(output_root) == own else [f"output_root={_hydra(output_root)}"])


def override(key: str, value: Any) -> str:
    """`key=value` as a word of a command line, the value quoted for Hydra where it needs to be."""
    return f"{key}={_hydra(value)}"


def command_line(stage: str, overrides: list[str]) -> str:
    """What a user types to run `stage`, as this program was started, its words quoted for the shell."""
    script = Path(sys.argv[0])
    start = f"python experiments/{stage}.py"
    if script.name == "finflow":
        start = f"finflow {stage}"
    elif script.parts[-2:] == _MODULE:
        start = f"python -m finflow {stage}"
    here = Path.cwd()
    folders = [str(one.relative_to(here) if one.is_relative_to(here) else one) for one in folders_used()]
    found = ["--config-dir", *folders] if len(folders) == 1 else [override("hydra.searchpath", folders)] * bool(folders)
    if any(word.startswith("hydra.searchpath=") for word in overrides):
        found = []
    return " ".join([start, *(shlex.quote(word) for word in [*found, *overrides])])


def program_of(stage: str) -> tuple[str, ...]:
    """Arguments of `python` that start this program again, for a job of `stage`."""
    script = Path(sys.argv[0])
    packaged = script.name == "finflow" or script.parts[-2:] == _MODULE
    return ("-m", "finflow", stage) if packaged else (str(script.resolve()),)


def typable(text: str) -> str:
    """`text` with commands that work in this shell: where `python` is another Python, they name this one's path."""
    found, own = which("python"), Path(sys.executable)
    if found is not None and Path(found).parent.samefile(own.parent):
        return text
    place = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    text = re.sub(r"\bpython (?=experiments/|-m finflow )", lambda _: f"{shlex.quote(str(place))} ", text)
    program = shlex.quote(str(place.with_name("finflow")))
    return re.sub(r"(^|: )finflow (?=[a-z])", lambda found: f"{found[1]}{program} ", text)


def under(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `key` is one of `prefixes` or lies below one."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _hydra(value: Any) -> str:
    """A value in the grammar of Hydra's command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_hydra(part) for part in value) + "]"
    if isinstance(value, str | Path):
        # A text that reads as a number, a bool or null must stay a text.
        text = str(value)
        return text if _PLAIN.fullmatch(text) and not _OTHER.fullmatch(text) else _quoted(text)
    return str(value)


def _quoted(text: str) -> str:
    """`text` between double quotes: backslashes count before a quote alone, and `${` would be looked up."""
    return '"' + _BEFORE_QUOTE.sub(r"\1\1", text).replace('"', r"\"").replace("${", r"\${") + '"'
