"""The words of a command line in Hydra's grammar, and the groups and options of `conf/` that they may name."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, ValueType
from hydra.errors import HydraException

from finflow.errors import ConfigError
from finflow.schema import ALGORITHMS, READS, RENAMED, STAGES, algorithms_of

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"
PRESETS: Mapping[str, tuple[str, ...]] = {"experiment": STAGES, "ablation": ("finetune",)}
"""Groups that set keys of other sections, and the stages that they are for."""


def parse_override(text: str) -> Override:
    """Read one `key=value` of a command line in Hydra's grammar.

    Raises
    ------
    ConfigError
        If it is not in that grammar.
    """
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        advice = _quoted_list(text) or (
            "write key=value, and quote a value with spaces, brackets, commas or '=' as 'key=\"value\"'"
        )
        raise ConfigError(f"{text}: cannot be read; {advice}") from error
    if not override.key_or_group:
        raise ConfigError(f"{text}: has no key; write key=value")
    return override


def _quoted_list(text: str) -> str | None:
    """The list of `key=[a,b]` with each of its values quoted, where that is what was missing."""
    key, _, value = text.partition("=")
    if not (value.startswith("[") and value.endswith("]")) or '"' in value or "'" in value:
        return None
    parts = ",".join('"' + part.strip() + '"' for part in value[1:-1].split(","))
    written = f"{key}=[{parts}]"
    try:
        OverridesParser.create().parse_override(written)
    except HydraException:
        return None
    return f"write '{written}'"


def current_names(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides with the keys of the version before renamed, and a line on each of those."""
    current, notes = list[str](), list[str]()
    for text in overrides:
        sign, key, rest = re.fullmatch(r"([+~]*)([^=@]*)(.*)", text, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
        current.append(f"{sign}{RENAMED.get(key, key)}{rest}")
        if key in RENAMED:
            notes.append(f"{key}: its name is {RENAMED[key]} now; the old one will be refused by the next version")
    return current, notes


def sweep_values(stage: str, text: str, folders: Sequence[Path] | None = None) -> tuple[str, ...] | None:
    """Values, as typed, that `key=a,b,c`, a range or a `glob(*)` of a group asks for; None where it is one value.

    Raises
    ------
    ConfigError
        If they have no end, or a glob fits nothing.
    """
    override = parse_override(text)
    if not override.is_sweep_override():
        return None
    if not override.is_discrete_sweep():
        raise ConfigError(f"{text}: a grid needs values; write them as a,b,c or range(start,stop)")
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        glob, choices = override.value(), group_choices(stage, folders).get(override.key_or_group, ())
        assert isinstance(glob, Glob)
        values = tuple(glob.filter(list(choices)))
    else:
        values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ConfigError(f"{text}: no value; write them as a,b,c or range(start,stop)")
    return values


def conf_dirs(overrides: Sequence[str]) -> list[Path]:
    """Folders of configurations: FinFlow's own, and those that `hydra.searchpath` adds.

    Raises
    ------
    ConfigError
        If one of them does not exist.
    """
    added = [parse_override(text).value() for text in overrides if text.startswith("hydra.searchpath=")]
    paths = [str(path) for one in added for path in (one if isinstance(one, list) else [one])]
    folders = [Path(path.removeprefix("file://")) for path in paths if not path.startswith("pkg://")]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"hydra.searchpath: {folder}: no such folder; name one with groups such as env/")
    return [CONF_DIR, *folders]


def config_name_of(overrides: Sequence[str]) -> str | None:
    """Name of the configuration that `--config-name` asks for in the stage's place."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("hydra.job.config_name=")]
    return named[-1].strip("\"'") if named else None


def plugins_of(overrides: Sequence[str]) -> list[str]:
    """Plugins that a command line names: typed, or in the presets of its `experiment`."""
    found: list[str] = []
    folders = conf_dirs(overrides)
    for override in map(parse_override, overrides):
        key, value = override.key_or_group, override.value()
        named = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if key == "plugins":
            return named
        for path in (folder / f"experiment/{name}.yaml" for folder in folders for name in named if key == "experiment"):
            with contextlib.suppress(OSError, ValueError, yaml.YAMLError):  # refused where it is composed
                content = yaml.safe_load(path.read_text())
                plugins = content.get("plugins", []) if isinstance(content, dict) else []
                found += [plugins] if isinstance(plugins, str) else plugins
    return found


def group_choices(stage: str, folders: Sequence[Path] | None = None) -> dict[str, tuple[str, ...]]:
    """Config groups that `stage` reads, and the options of each, in FinFlow's own folder or in `folders`."""
    folders = folders or [CONF_DIR]
    names = sorted({path.parent.name for folder in folders for path in folder.glob("*/*.yaml")} - {"shared"})
    found = {
        name: tuple(sorted({path.stem for folder in folders for path in folder.glob(f"{name}/*.yaml")}))
        for name in names
        if stage in PRESETS.get(name, ()) or offers(stage, name) or is_own(name, folders)
    }
    if "algo" in found:
        own = {path.stem for folder in folders[1:] for path in folder.glob("algo/*.yaml")}
        others = {name for phase in ALGORITHMS if phase != stage for name in algorithms_of(phase)}
        found["algo"] = (*ALGORITHMS[stage], *sorted(own - set(ALGORITHMS[stage]) - others))
    return found


def is_own(key: str, folders: Sequence[Path]) -> bool:
    """Whether a key is a group that the user has added."""
    return not (CONF_DIR / key).is_dir() and any((folder / key).is_dir() for folder in folders)


def offers(stage: str, key: str) -> bool:
    """Whether `stage` reads a key; a stage that reads `env.end` alone takes the data of its run, no other `env`."""
    return covers(READS[stage], key) and (key != "env" or "env" in READS[stage])


def covers(prefixes: Sequence[str], key: str) -> bool:
    """Whether a key is one of `prefixes`, lies in the section of one, or is a section that holds one."""
    return any(key == p or key.startswith(p + ".") or p.startswith(key + ".") for p in prefixes)
