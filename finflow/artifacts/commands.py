"""Command lines for messages and closing lines: a stage with the settings of a run."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import Any

from finflow.artifacts.names import CONFIG
from finflow.config import from_yaml, load, plain_yaml
from finflow.config_errors import MISSING
from finflow.errors import ConfigError
from finflow.io.flatten import flatten
from finflow.schema import READS, Config, role_of
from finflow.schema.roles import CARRIED, Role

_DATA = {Role.DATA, Role.FILE, Role.MARKET, Role.ENVIRONMENT, Role.OUTPUT}
"""What of an earlier version's run is trained on again."""

_OPTIONS = {"yahoo": ("dow30", "etf")}
"""Options of the group `env` by their source, where they are not named like it."""

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
# Bare, these would be read as a float, null, a bool; a whole number reads back as the text that it was.
_OTHER = re.compile(r"(?![1-9]\d*$)-?[\d_.]+(e-?\d+)?|null|true|false|nan|-?inf", re.IGNORECASE)

_MODULE = ("finflow", "__main__.py")
_BEFORE_QUOTE = re.compile(r'(\\+)(?="|$)')


def command_for(stage: str, config: Config, values: Mapping[str, Any] | None = None) -> str:
    """Shortest command for `stage` whose data, folds, budgets and network are those of `config`.

    Parameters
    ----------
    config : of a run of any stage.
    values : what the command shall say besides, by key, for example `{"run": folder}`; quoted here.

    Returns
    -------
    For example `python experiments/pretrain.py experiment=demo env=csv env.path=prices.csv`.
    """
    wanted = flatten(config.model_dump())
    shortest: list[str] | None = None
    for base in ([*preset, *env] for preset in ([], ["experiment=demo"]) for env in _env_choices(stage, config)):
        if shortest is None or len(shortest) > len(base):  # else it cannot become shorter
            line = [*base, *_missing(stage, base, wanted)]
            shortest = line if shortest is None or len(line) < len(shortest) else shortest
    assert shortest is not None
    return command_line(stage, [*shortest, *(f"{key}={_hydra(value)}" for key, value in (values or {}).items())])


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
    stored = plain_yaml(path)
    try:
        stage, source = stored["stage"], stored["env"]["source"]
        base = [f"env={_OPTIONS.get(source, (source,))[0]}"]
        wanted = {key: value for key, value in flatten(stored).items() if role_of(key) in _DATA}
        return command_for(stage, load(stage, [*base, *_missing(stage, base, wanted)]))
    except (KeyError, TypeError, ConfigError):
        return None


def command_under(stage: str, output_root: str | Path) -> str:
    """Command for `stage` with its own settings, under `output_root`."""
    own = load(stage).output_root
    return command_line(stage, [] if str(output_root) == own else [f"output_root={_hydra(output_root)}"])


def override(key: str, value: Any) -> str:
    """`key=value` as a word of a command line, the value quoted for Hydra where it needs to be."""
    return f"{key}={_hydra(value)}"


def _env_choices(stage: str, config: Config) -> list[list[str]]:
    """Each choice of the group `env` that reads from the same source."""
    if "env" not in READS[stage]:
        return [[]]
    source = config.env.source
    path = [] if config.env.path is None else [f"env.path={_hydra(config.env.path)}"]
    if source == load(stage).env.source:
        return [path]
    return [[f"env={option}", *path] for option in _OPTIONS.get(source, (source,))]


def command_line(stage: str, overrides: list[str]) -> str:
    """What a user types to run `stage`, as this program was started, its words quoted for the shell."""
    script = Path(sys.argv[0])
    start = f"python experiments/{stage}.py"
    if script.name == "finflow":
        start = f"finflow {stage}"
    elif script.parts[-2:] == _MODULE:
        start = f"python -m finflow {stage}"
    return " ".join([start, *(shlex.quote(word) for word in overrides)])


def program_of(stage: str) -> tuple[str, ...]:
    """What follows `python` where this program is started again, for a job of `stage`."""
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


def _missing(stage: str, base: list[str], wanted: Mapping[str, Any]) -> list[str]:
    """Overrides that take the stage's own values, with `base`, to those wanted, as far as the stage reads them."""
    own = flatten(load(stage, base).model_dump())
    return [
        f"{key}={_hydra(wanted[key])}"
        for key in own
        if key in wanted and wanted[key] != own[key] and role_of(key) in CARRIED and under(key, READS[stage])
    ]


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
