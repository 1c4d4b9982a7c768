"""Composing a stage's configuration from `conf/` and a command line, parsing it, and a run's `config.yaml`.

The words of a command line are read in Hydra's grammar. `parse` turns a composed config into the frozen objects of
`schema` and refuses whatever the schema does not know, in one line that names the key, the value and the choices;
nothing after it sees OmegaConf. A `config.yaml` of the version before is brought up to date when it is read.
"""

import contextlib
import functools
import itertools
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, ValueType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from finflow.errors import ConfigError
from finflow.io.files import flatten
from finflow.plugins import added, conf_of, load_plugins, search, unknown
from finflow.schema import ADDED, ALGORITHMS, IDLE, MARKS, READS, RENAMED, STAGES, Config, algorithms_of
from finflow.schema.fields import Schema, schemas_in

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"
PRESETS: Mapping[str, tuple[str, ...]] = {"experiment": STAGES, "ablation": ("finetune",)}
"""Groups that set keys of other sections, and the stages that they are for."""


@functools.lru_cache(maxsize=1000)
def parse_override(text: str) -> Override:
    """Read one `key=value` of a command line in Hydra's grammar; a ConfigError where it is not in it."""
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

    A ConfigError where they have no end, or a glob fits nothing.
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
    """Folders of configurations: FinFlow's own, and those that `hydra.searchpath` adds, which have to exist."""
    added = [parse_override(text).value() for text in overrides if text.startswith("hydra.searchpath=")]
    paths = [str(path) for one in added for path in (one if isinstance(one, list) else [one])]
    folders = [Path(path.removeprefix("file://")) for path in paths if not path.startswith("pkg://")]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"hydra.searchpath: {folder}: no such folder; name one with groups such as env/")
    return [CONF_DIR, *folders]


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


_NO_CHDIR = "paths are read from where you type; leave it out, and name the run's folder by hydra.run.dir=DIR"
MISSING = "missing; it has no default"
"""Said of a key that a configuration lacks."""
NO_ENVIRONMENT = 'looks up an environment variable, which config.yaml would keep; let the shell fill it in as "$NAME"'
_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\b")


def refuse_unread(stage: str, overrides: Sequence[str]) -> None:
    """Refuse a typed key that `stage` does not know or would ignore: an option that does nothing misleads."""
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
    if key == "algo.name" and value in group_choices(stage, folders)["algo"]:
        raise ConfigError(f"{text}: the option of algo sets it; write algo={value}")
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
    """Load the plugins that a command line or its preset names; their options are among its own from here on."""
    folders = conf_dirs(overrides)[1:]
    search(folders)
    names = plugins_of(overrides)
    load_plugins(names)
    more = [folder for folder in conf_of(names) if folder not in folders]
    return _searching([*folders, *more], overrides) if more else list(overrides)


def _searching(folders: Sequence[Path], overrides: Sequence[str]) -> list[str]:
    """Overrides under which Hydra searches these folders, beside its own, and no others."""
    quoted = ",".join(f'"{folder.absolute()}"' for folder in folders)
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
    _refuse_unused(cfg, overrides)
    if not with_hydra:
        with open_dict(cfg):
            del cfg["hydra"]
    return cfg


def _refuse_unused(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a typed key that another key makes of no use: its section is null, or what it needs is not there."""
    for text in overrides:
        key = parse_override(text).key_or_group
        section = key.rpartition(".")[0]
        if section in MARKS and OmegaConf.select(cfg, section, default="") is None:
            raise ConfigError(f"{text}: {section} is null; leave out one of the two")
        needed = MARKS[key].only_with if key in MARKS else ()
        if needed and not any(_holds(cfg, condition) for condition in needed):
            wanted = " or ".join(one if "=" in one else f"{one}=VALUE" for one in needed)
            raise ConfigError(f"{text}: read with {wanted} alone; add that, or leave it out")


def _holds(cfg: DictConfig, condition: str) -> bool:
    """Whether `key=value`, or a `key` that is set; true where the algorithm has no such key."""
    key, _, wanted = condition.partition("=")
    absent = object()
    value: object = OmegaConf.select(cfg, key, default=absent)
    return value is absent or (value == wanted if wanted else bool(value))


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

    It is the stage's, or that of `hydra.job.config_name`, which `--config-name` stands for.
    """
    typed = [text.partition("=")[2] for text in overrides if text.startswith("hydra.job.config_name=")]
    name = typed[-1].strip("\"'") if typed else stage
    folders = conf_dirs(overrides)
    found = next((folder for folder in folders if (folder / f"{name}.yaml").is_file()), None)
    if found is None:
        raise ConfigError(f"--config-name={name}: no such configuration; name a file of --config-dir, or leave it out")
    if found == CONF_DIR:
        return found, name, list(overrides)
    others = [folder for folder in folders if folder != found]  # Hydra looks for it in no other folder
    return found.absolute(), name, _searching(others, overrides)


def parse(cfg: DictConfig) -> Config:
    """Turn a composed config into frozen objects; a ConfigError names the first key that is wrong or missing."""
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
    return _validated(stage, values)


def named(config: Config, name: str) -> Config:
    """The same configuration under another name; a ConfigError where it cannot be the name of a folder."""
    return _validated(config.stage, {**config.model_dump(), "name": name})


def _validated(stage: str, values: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(validation_message(stage, error, values)) from error


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Nested values of a composed config, interpolations resolved, Hydra's own left out.

    A ConfigError where one is missing or cannot be resolved.
    """
    try:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(resolve_message(error)) from error
    return {str(key): value for key, value in cast("dict[Any, Any]", values).items()}


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
    """Read a run folder's `config.yaml`; a ConfigError where it is missing or no FinFlow configuration."""
    cfg = _read(path)
    try:
        return parse(_completed(cfg))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _completed(cfg: DictConfig) -> DictConfig:
    """With today's values of the keys that it lacks and its own stage does not read, which later versions added."""
    stage, missing = unresolved(cfg).get("stage"), [key for key in Config.model_fields if key not in cfg]
    if stage not in STAGES or not missing:
        return cfg
    read = {key.split(".")[0] for key in READS[stage]}
    own = compose_stage(stage, [])
    return OmegaConf.merge({key: own[key] for key in missing if key not in read}, cfg)  # pyright: ignore[reportReturnType]


def plain_yaml(path: Path) -> dict[str, Any]:
    """Content of a run folder's `config.yaml` as it stands, nothing looked up; raises as `from_yaml`."""
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
