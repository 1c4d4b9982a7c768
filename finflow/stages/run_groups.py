"""Several runs at once: averaged where only the seed differs, stitched where only the fold does, averaged and then
stitched where both do, else compared setting by setting, the seeds of each averaged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from finflow.agents.learner import GreedyPolicy
from finflow.artifacts.runs import named_runs, under
from finflow.errors import ConfigError
from finflow.io.files import flatten
from finflow.nn.actor import ActorEnsemble
from finflow.schema import READS, Config, role_of
from finflow.schema.fields import CARRIED, Role
from finflow.stages.loaded_run import Trained, load_trained
from finflow.stages.prepare import Prepared
from finflow.sweeps.folder import SweepFolder
from finflow.sweeps.table import REPLICATES

Kind = Literal["single", "seeds", "folds", "ensemble", "comparison"]
"""How runs belong together; an ensemble is folds of which each has several seeds, a comparison several settings."""
_COMPARED = CARRIED - {Role.HOST, Role.OUTPUT} | {Role.METHOD}
"""Roles of the keys by which runs are compared; not pretrained weights, which differ between seeds anyway."""


@dataclass(frozen=True)
class Group:
    """What acts as one policy in one fold: a run, or several seeds averaged."""

    runs: tuple[Trained, ...]

    @property
    def first(self) -> Trained:
        """The run whose market, fold and configuration stand for all."""
        return self.runs[0]

    @property
    def prepared(self) -> Prepared:
        """Market, fold and world of the first run; those of the others are the same."""
        return self.first.prepared

    @property
    def weights(self) -> list[str]:
        """SHA-256 of each run's weights."""
        return [str(run.summary.get("weights_sha256")) for run in self.runs]

    @cached_property
    def policy(self) -> GreedyPolicy:
        """The run's own policy, or the average of all."""
        return self.entering(self.prepared.fold.entries)

    def entering(self, entries: Iterable[int]) -> GreedyPolicy:
        """The policy with other rows at which it buys its whole aim, see `GreedyPolicy`."""
        actors = [run.networks.actor for run in self.runs]
        rows = frozenset(entries)
        actor = actors[0] if len(actors) == 1 else ActorEnsemble(actors, rows)
        return GreedyPolicy(actor, self.prepared.world, rows)


def load_runs(config: Config, end: str | None = None) -> tuple[list[Trained], Kind]:
    """The runs that `config.run` names, a sweep's folder standing for its jobs, and how they belong together."""
    runs = [load_trained(config, run, end) for run in named_runs(config.run)]
    return runs, kind_of(runs)


def load_groups(config: Config, end: str | None = None) -> list[Group]:
    """What `config.run` names as policies that can be traded, one per fold, in the order of their test windows."""
    runs, kind = load_runs(config, end)
    if kind == "comparison":
        differing = ", ".join(sorted(_differing([_settings(run.config) for run in runs])))
        one = "name one run as run=DIR, or all seeds of one setting as run=[DIR,DIR]"
        raise ConfigError(f"run: these differ by {differing}: no one strategy; {one}")
    return groups_of(runs, kind)


def groups_of(runs: Sequence[Trained], kind: Kind) -> list[Group]:
    """Runs that act together, each of them one strategy: all seeds of a fold, or of a setting to compare."""
    if kind in ("folds", "ensemble"):
        return [Group(tuple(group)) for group in by_fold(runs).values()]
    return list(settings_of(runs).values()) if kind == "comparison" else [Group(tuple(runs))]


def settings_of(runs: Sequence[Trained]) -> dict[str, Group]:
    """Runs to compare by the name of their setting, in the order in which they are named, their seeds rising.

    A setting is called by what was chosen for it: the option or values of its sweep, else the keys that set it apart.
    Runs of one setting and seed, from other parents, stand each for itself.
    """
    found: dict[tuple[str, str], list[Trained]] = {}
    for run in runs:
        own = _settings(run.config) | {"seed": None}
        found.setdefault((_chosen(run), repr(sorted(own.items()))), []).append(run)
    groups: list[tuple[str, Group]] = []
    for (chosen, _), members in found.items():
        members.sort(key=lambda run: run.config.seed)
        repeated = len({run.config.seed for run in members}) < len(members)
        together = [(run,) for run in members] if repeated else [tuple(members)]
        groups += [(chosen, Group(one)) for one in together]
    apart = [_settings(group.first.config) | {"seed": None} for _, group in groups]
    keys = sorted(_differing(apart))
    names = [
        chosen or ", ".join(f"{key}={own.get(key)}" for key in keys)[:80]
        for (chosen, _), own in zip(groups, apart, strict=True)
    ]
    unique = [name and names.count(name) == 1 for name in names]
    return {
        name if one else f"{name} {group.first.folder.name}".strip(): group
        for name, one, (_, group) in zip(names, unique, groups, strict=True)
    }


def _chosen(run: Trained) -> str:
    """The values that its sweep chose for a run but the seed; of a group the option alone; empty outside a sweep."""
    folder = SweepFolder(run.folder.parent)
    job = next((job for job in folder.manifest().jobs if job.name == run.folder.name), None) if folder.exists else None
    plain = flatten(run.config.model_dump())
    values = {} if job is None else {key: value for key, value in job.values.items() if key not in REPLICATES}
    return ", ".join(f"{key}={value}" if key in plain else value for key, value in values.items())


def named(folders: Sequence[Path]) -> str | list[str]:
    """What `run` is set to for these folders."""
    return str(folders[0]) if len(folders) == 1 else [str(folder) for folder in folders]


def kind_of(runs: Sequence[Trained]) -> Kind:
    """How several runs belong together.

    Raises
    ------
    ConfigError
        If the same run is named twice, folds have different seeds, or runs to compare were not judged on the same data
        and test window.
    """
    if len(runs) == 1:
        return "single"
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"run: {runs[0].folder.name} and others: the same run is named twice; name each once")
    differing = _differing([_settings(run.config) for run in runs])
    prints = {run.prepared.market.fingerprint for run in runs}
    if len(prints) > 1:
        raise ConfigError("run: these runs were trained on different data; evaluate them one by one")
    if differing == {"fold"}:
        return "folds"
    if differing == {"fold", "seed"}:
        # Whose average stands in which window would else be a choice.
        (first, wanted), *others = ((fold, [run.config.seed for run in one]) for fold, one in by_fold(runs).items())
        for fold, found in others:
            if found != wanted:
                both = f"fold {first} has seeds {wanted}, fold {fold} has {found}"
                raise ConfigError(f"run: {both}; name runs of the same seeds in each")
        return "ensemble"
    if len({run.prepared.fold.test for run in runs}) > 1:
        raise ConfigError(
            f"run: these differ by {', '.join(sorted(differing))} and have different test windows; name one fold's"
        )
    once = len({run.config.seed for run in runs}) == len(runs)
    return "seeds" if differing == {"seed"} and once else "comparison"


def by_fold(runs: Sequence[Trained]) -> dict[str, list[Trained]]:
    """Runs of each fold, seeds in rising order, folds in the order of their test windows."""
    found: dict[str, list[Trained]] = {}
    for run in sorted(runs, key=lambda run: (run.prepared.fold.test.start, run.config.seed)):
        found.setdefault(run.prepared.fold.name, []).append(run)
    return found


def labels(runs: Sequence[Trained], kind: Kind) -> list[str]:
    """A short name for each run: its seed; of folds and of settings to compare for each, as `groups_of` has them."""
    if kind in ("single", "seeds"):
        return [f"seed {run.config.seed}" for run in runs]
    if kind in ("folds", "ensemble"):
        return [f"fold {name}" for name in by_fold(runs)]
    return list(settings_of(runs))


def confidence_lines(runs: Sequence[Trained], kind: Kind) -> dict[str, str]:
    """How much of its tilt each run is deployed with, by a name that sets the runs apart; "" of a single one."""
    if kind == "comparison":
        groups = settings_of(runs).items()
        named = [(f"{setting}, seed {run.config.seed}", run) for setting, group in groups for run in group.runs]
    else:
        name = {"single": "", "folds": "fold {0}", "seeds": "seed {1}", "ensemble": "fold {0}, seed {1}"}[kind]
        named = [(name.format(run.prepared.fold.name, run.config.seed), run) for run in runs]
    return {label: run.confidence.line() for label, run in named if run.confidence is not None}


def _differing(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    keys = {key for one in settings for key in one}
    return {key for key in keys if len({repr(one.get(key)) for one in settings}) > 1}


def _settings(config: Config) -> dict[str, Any]:
    read = READS[config.stage]
    return {k: v for k, v in flatten(config.model_dump()).items() if under(k, read) and role_of(k) in _COMPARED}
