"""Plugins: algorithms, networks, features, sources of prices and trackers that other packages add by name."""

import hashlib
import importlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, Literal

from finflow.errors import ConfigError

GROUP = "finflow.plugins"
"""Group of entry points that an installed package registers its plugins in."""
Kind = Literal["algorithms", "networks", "features", "sources", "trackers"]
KINDS: tuple[Kind, ...] = ("algorithms", "networks", "features", "sources", "trackers")

Named = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Plugin:
    """What a module adds, by the names that a configuration uses; docs/extending/ has a page for each kind.

    Attributes
    ----------
    algorithms : name -> (class of its settings, learner of networks, settings, world and generator): `algo.name`.
    networks : name -> actor and critic of an `ObservationSpec` and a section `algo.network`: `algo.network.kind`.
    features : name -> [T, d] array of a `History`: `env.features`.
    sources : name -> `Prices` of a section `env` and a folder for downloads or None: `env.source`.
    trackers : name -> `Sink` of a run's folder and the step that a resumed run goes on from or None: `tracking.sinks`.
    conf : folder with options of groups, such as algo/NAME.yaml.
    """

    algorithms: Mapping[str, tuple[type[Any], Callable[..., Any]]] = field(default_factory=dict)
    networks: Named = field(default_factory=dict)
    features: Named = field(default_factory=dict)
    sources: Named = field(default_factory=dict)
    trackers: Named = field(default_factory=dict)
    conf: Path | None = None


_LOADED: dict[str, tuple[Plugin, ModuleType]] = {}
_FOLDERS: list[Path] = []


def search(folders: Sequence[Path]) -> None:
    """Find modules of plugins in these folders too, after all others."""
    for folder in folders:
        if (place := folder.absolute()) not in _FOLDERS:
            _FOLDERS.append(place)
            sys.path.append(str(place))


def load_plugins(names: Sequence[str]) -> None:
    """Import plugins; one that is loaded stays as it is.

    A ConfigError where one cannot be found or imported, is none, or has a name that another one has.
    """
    for name in names:
        if name not in _LOADED:
            plugin, module = _found(name)
            for kind in KINDS:
                for other, (loaded, _) in _LOADED.items():
                    both = getattr(plugin, kind).keys() & getattr(loaded, kind).keys()
                    if both and plugin is not loaded:
                        raise ConfigError(f"plugins=[{name}]: {min(both)} is of {other} too; give one another name")
            _LOADED[name] = plugin, module


def added(kind: Kind, names: Collection[str] | None = None) -> dict[str, Any]:
    """What plugins add of a kind, by name: those of `names`, or all that are loaded."""
    chosen = (plugin for name, (plugin, _) in _LOADED.items() if names is None or name in names)
    return {name: one for plugin in chosen for name, one in getattr(plugin, kind).items()}


def chosen(key: str, name: str, own: Mapping[str, Any], kind: Kind) -> Any:
    """What the value `name` of `key` stands for, among FinFlow's own and what plugins add, or a ConfigError."""
    known = {**own, **added(kind)}
    if name not in known:
        raise ConfigError(unknown(key, name, known))
    return known[name]


def unknown(key: str, name: str, known: Collection[str]) -> str:
    """The line on a name that neither FinFlow nor a plugin knows."""
    choices = f"choose one of {', '.join(known)}, or name" if known else "name"
    return f"{key}={name}: no such choice; {choices} the plugin that has it: plugins=[MODULE]"


def conf_of(names: Sequence[str]) -> list[Path]:
    """Folders of options that loaded plugins bring."""
    return [conf for name in names if (conf := _LOADED[name][0].conf) is not None]


def code_of(names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the Python files of each loaded plugin, its whole package where it is in one."""
    found: dict[str, str] = {}
    for name in names:
        module = _LOADED[name][1]
        top = sys.modules[module.__name__.partition(".")[0]]
        folders = [Path(path) for path in getattr(top, "__path__", [])]
        files = [file for folder in folders for file in sorted(folder.rglob("*.py"))] or [Path(str(module.__file__))]
        found[name] = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return found


def folders_used() -> list[Path]:
    """Added folders that a loaded plugin was found in, which the next command has to name too."""
    files = [Path(str(module.__file__)) for _, module in _LOADED.values()]
    return [folder for folder in _FOLDERS if any(file.is_relative_to(folder) for file in files)]


def _found(name: str) -> tuple[Plugin, ModuleType]:
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in installed:
        _refuse_others(name, installed)
    path, _, attribute = installed.get(name, name).partition(":")
    try:
        module = importlib.import_module(path)
    except Exception as error:
        last = extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"plugins=[{name}]: cannot be imported ({reason}, {last.filename}:{last.lineno})") from error
    plugin = getattr(module, attribute or "plugin", None)
    if not isinstance(plugin, Plugin):
        raise ConfigError(f"plugins=[{name}]: {path} has no `plugin`; write plugin = finflow.plugins.Plugin(...) in it")
    return plugin, module


def _refuse_others(name: str, installed: Collection[str]) -> None:
    """Refuse what is no plugin before it is imported: a run folder from somebody else may name any module."""
    try:
        spec = find_spec(name) if name.isidentifier() else None
    except ValueError:  # a module without a specification
        spec = None
    if spec is None:
        raise ConfigError(
            f"plugins=[{name}]: no module of this name on PYTHONPATH or in --config-dir, and no installed plugin"
            f" (installed: {', '.join(installed) or 'none'})"
        )
    source = Path(spec.origin or "")
    if source.suffix != ".py" or __name__ not in source.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"plugins=[{name}]: no plugin, since it imports nothing of {__name__}; name another module")
