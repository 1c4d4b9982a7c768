"""Messages about a wrong command line or configuration: one line with key, value and choices."""

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from finflow.config.overrides import CONF_DIR, PRESETS, conf_dirs, covers, group_choices, is_own, offers, parse_override
from finflow.errors import ConfigError
from finflow.plugins import added
from finflow.schema import ALGORITHMS, IDLE, READS, RENAMED, Config, algorithms_of
from finflow.schema.fields import Schema, schemas_in

_NO_CHDIR = "paths are read from where you type; leave it out, and name the run's folder by hydra.run.dir=DIR"
MISSING = "missing; it has no default"
"""Said of a key that a configuration lacks."""
NO_ENVIRONMENT = 'looks up an environment variable, which config.yaml would keep; let the shell fill it in as "$NAME"'
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\b")


def refuse_unread(stage: str, overrides: Sequence[str]) -> None:
    """Refuse a typed key that `stage` does not know or would ignore: an option that does nothing misleads.

    Raises
    ------
    ConfigError
        Naming the key and its choices, or the stages that read it.
    """
    presets: list[str] = []
    folders = conf_dirs(overrides)
    for text in overrides:
        override = parse_override(text)
        key = override.key_or_group
        if key == "experiment":
            presets.append(text.partition("=")[2])
            if len(presets) > 1:  # Hydra would drop the first without a word
                both = ",".join(preset.strip("[]") for preset in presets)
                raise ConfigError(f"{text}: a preset is typed already; write 'experiment=[{both}]' for both")
        if "_target_" in text:
            raise ConfigError(f"{key}: names code to run (_target_); FinFlow makes nothing by such names, leave it out")
        if _ENVIRONMENT.search(text):
            raise ConfigError(f"{key}: {NO_ENVIRONMENT}")
        if override.is_delete():
            raise ConfigError(f"{text}: nothing can be taken out of the configuration; give it another value")
        if override.is_sweep_override():
            raise ConfigError(f"{text}: several values; add -m to run them all, or write a list as {key}=[a,b]")
        if key.split(".")[0].split("/")[0] == "hydra":
            if key == "hydra.job.chdir" and override.value() is not False:
                raise ConfigError(f"{text}: {_NO_CHDIR}")
            continue
        _refuse_shape(stage, text, override, folders)
        if stage in PRESETS.get(key, ()) or offers(stage, key) or is_own(key, folders):
            _refuse_idle(text, key, overrides)
            continue
        readers = [s for s in READS if s in PRESETS.get(key, ()) or offers(s, key)]
        raise ConfigError(f"{text}: {stage} does not read {key} (read by {', '.join(readers)}); leave it out")


def _refuse_idle(text: str, key: str, overrides: Sequence[str]) -> None:
    """Refuse a key that a switch of the same command line makes of no use."""
    typed = (parse_override(override) for override in overrides)
    for switch in {override.key_or_group for override in typed if override.value() is True} & IDLE.keys():
        if covers(IDLE[switch], key):
            raise ConfigError(f"{text}: not read with {switch}=true; leave out one of the two")


def _refuse_shape(stage: str, text: str, override: Override, folders: Sequence[Path]) -> None:
    """Refuse an unknown key, an unknown option of a group, and a value where a section belongs."""
    key, value = override.key_or_group, override.value()
    choices = group_choices(stage, folders).get(key)
    if choices is not None:
        if is_own(key, folders) and not override.is_add():
            raise ConfigError(f"{text}: a group of your own; write +{text} to add it")
        known = [path.stem for folder in folders for path in folder.glob(f"{key}/*.yaml")]
        if (override.is_add() and not is_own(key, folders)) or override.package is not None:
            raise ConfigError(f"{text}: write {key}=OPTION; choose one of {', '.join(choices)}")
        named: list[Any] = list(value) if key == "experiment" and isinstance(value, list) else [value]
        if any(one not in known for one in named):
            raise ConfigError(f"{text}: no such option; choose one of {', '.join(choices)}")
        if any(one not in choices for one in named):
            raise ConfigError(f"{text}: not an algorithm of {stage}; choose one of {', '.join(choices)}")
        return
    path = key.split(".")
    if key not in PRESETS and not any(path[-1] in cls.model_fields for cls in _schemas_at(path[:-1])):
        raise ConfigError(f"{text}: {_unknown(stage, key)}")
    if key == "stage":
        raise ConfigError(f"{text}: each stage has an entry point of its own; run experiments/{value}.py")
    if _schemas_at(path) and value is not None and not isinstance(value, dict) and not (CONF_DIR / key).is_dir():
        inside = ", ".join(f"{key}.{k}" for k in _known_keys(stage, f"{key}."))
        raise ConfigError(f"{text}: a section, not a value; set one of {inside}")


def one_line(error: Exception) -> str:
    """First line of an error, its white space folded."""
    return " ".join(str(error).split("\n")[0].split())


def resolve_message(error: OmegaConfBaseException) -> str:
    """An interpolation or a `???` that cannot be resolved, with the key it stands at."""
    key = str(getattr(error, "full_key", None) or "")
    text = NO_ENVIRONMENT if NO_ENVIRONMENT in str(error) else one_line(error)
    return f"{key}: {text}" if key else text


def compose_message(stage: str, error: Exception, overrides: Sequence[str]) -> str:
    """Why Hydra cannot compose a configuration: its first line, or key and choices where it names them in fields."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such option; choose one of {', '.join(error.options)}"
    key = getattr(error.__cause__, "full_key", None)
    if key is None:
        return one_line(error)
    wrong = next((text for text in overrides if text.lstrip("+").startswith(key)), key)
    group, section, *_ = [*key.split("."), ""]
    options = [one for one in group_choices(stage).get(group, ()) if _has_section(CONF_DIR / group / one, section)]
    if options:
        return f"{wrong}: belongs to {group}={' or '.join(options)} alone; choose that, or leave it out"
    return f"{wrong}: {_unknown(stage, key)}" if group != "hydra" else f"{wrong}: no such key of Hydra; leave it out"


def _has_section(option: Path, section: str) -> bool:
    return f"\n{section}:\n" in option.with_suffix(".yaml").read_text()


def _schemas_at(path: Sequence[str], stage: str | None = None) -> list[type[Schema]]:
    """Schemas found by walking `path` from the root: several where it meets a union, unless `stage` decides."""
    found: list[type[Schema]] = [Config]
    for depth, part in enumerate(path):
        found = [t for cls in found if part in cls.model_fields for t in schemas_in(cls.model_fields[part].annotation)]
        if depth == 0 and part == "algo":
            found += [cls for cls, _ in added("algorithms").values()]
            names = algorithms_of(stage) if stage is not None and stage in ALGORITHMS else None
            found = [cls for cls in found if names is None or get_args(cls.model_fields["name"].annotation)[0] in names]
    return found


def _unknown(stage: str, key: str) -> str:
    if key in RENAMED:
        return f"its name is {RENAMED[key]} now; write that"
    return f"unknown key; known here: {', '.join(_known_keys(stage, key))}"


def _known_keys(stage: str, key: str) -> list[str]:
    """Keys beside `key` that `stage` reads, from the deepest part of its path that exists."""
    path = key.split(".")[:-1]
    while path and not _schemas_at(path, stage):
        path = path[:-1]
    names = {name for cls in _schemas_at(path, stage) for name in cls.model_fields}
    return sorted(n for n in names if n != "stage" and covers(READS[stage], ".".join([*path, n])))


def validation_message(stage: str, error: ValidationError, values: Mapping[str, Any]) -> str:
    """First problem of a validation of `values`, as one line that names key, value and choices.

    Of a list the whole is named, as it was typed, and then its part that is wrong.
    """
    problem = error.errors(include_url=False)[0]
    members = {*(n for phase in ALGORITHMS for n in algorithms_of(phase)), *(t.__name__ for t in (int, float, str))}
    keys = list(itertools.takewhile(lambda part: not isinstance(part, int), problem["loc"]))
    path = [str(p) for i, p in enumerate(keys) if not (p in members or "[" in str(p)) or i == 0]
    key = ".".join(path)
    kind, value, context = problem["type"], _shown(problem["input"]), problem.get("ctx", {})
    if len(keys) < len(problem["loc"]):
        whole = functools.reduce(lambda tree, part: tree[part], path, values)
        value = f"{_shown(whole)}: {value}"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}={value}: {_unknown(stage, key)}"
    if kind in ("missing", "missing_argument"):
        return f"{key}: {MISSING}, set it in conf/ or on the command line"
    if kind == "literal_error":
        choices = str(context.get("expected")).replace(" or ", ", ").replace("'", "")
        return f"{key}={value}: no such choice; choose one of {choices}"
    if kind == "string_pattern_mismatch":
        return f"{key}={value}: should be a name of letters, digits and . _ + - alone"
    if problem["input"] == "" and kind in ("too_short", "string_too_short"):
        return f"{key}={value}: should not be empty"
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ").replace(" after validation", "")
    return f"{key}={value}: {reason[0].lower()}{reason[1:]}"


def _shown(value: Any) -> str:
    """A value as a user types it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    text = (value or "''") if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
