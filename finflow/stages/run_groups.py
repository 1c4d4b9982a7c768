"""Several runs at once: averaged where only the seed differs, stitched where only the fold does, averaged and then
stitched where both do, else compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from finflow.agents.greedy import GreedyPolicy
from finflow.artifacts.commands import under
from finflow.artifacts.runs import named_runs
from finflow.errors import ConfigError
from finflow.io.flatten import flatten
from finflow.nn.ensemble import ActorEnsemble
from finflow.schema import READS, Config, role_of
from finflow.schema.roles import CARRIED, Role
from finflow.stages.loaded_run import Trained, load_trained
from finflow.stages.prepare import Prepared

Kind = Literal["single", "seeds", "folds", "ensemble", "comparison"]
"""How runs belong together; an ensemble is folds of which each has several seeds."""
_COMPARED = CARRIED - {Role.HOST, Role.OUTPUT} | {Role.METHOD}
"""What makes a run another one; the parent's weights differ between seeds anyway."""


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

    @property
    def label(self) -> str:
        """Its seeds, for a reader."""
        seeds = ", ".join(str(run.config.seed) for run in self.runs)
        return f"seed{'s' if len(self.runs) > 1 else ''} {seeds}"

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
    """The runs that `config.run` names, a sweep's folder standing for its jobs, and how they belong together.

    Parameters
    ----------
    end : last day of the data; None for the runs' own `env.end`.

    Raises
    ------
    ConfigError, DataError, StorageError
        As `named_runs`, `load_trained` and `kind_of`.
    """
    runs = [load_trained(config, run, end) for run in named_runs(config.run)]
    return runs, kind_of(runs)


def load_groups(config: Config, end: str | None = None) -> list[Group]:
    """What `config.run` names as policies that can be traded, one a fold, in the order of their test windows.

    Raises
    ------
    ConfigError
        If the runs are no one strategy but were to be compared, and as `load_runs`.
    """
    runs, kind = load_runs(config, end)
    if kind == "comparison":
        differing = ", ".join(sorted(_differing([_settings(run.config) for run in runs])))
        raise ConfigError(f"run: these differ by {differing}: no one strategy; name one of them, or its seeds")
    return groups_of(runs, kind)


def groups_of(runs: Sequence[Trained], kind: Kind) -> list[Group]:
    """Runs that act together: all seeds of a fold; of runs to compare each for itself."""
    if kind in ("folds", "ensemble"):
        return [Group(tuple(group)) for group in by_fold(runs).values()]
    return [Group(tuple(runs))] if kind == "seeds" else [Group((run,)) for run in runs]


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
        _require_same_seeds(runs)
        return "ensemble"
    if len({run.prepared.fold.test for run in runs}) > 1:
        raise ConfigError(
            f"run: these differ by {', '.join(sorted(differing))} and have different test windows; name one fold's"
        )
    return "seeds" if differing == {"seed"} else "comparison"


def by_fold(runs: Sequence[Trained]) -> dict[str, list[Trained]]:
    """Runs of each fold, seeds in rising order, folds in the order of their test windows."""
    found: dict[str, list[Trained]] = {}
    for run in sorted(runs, key=lambda run: (run.prepared.fold.test.start, run.config.seed)):
        found.setdefault(run.prepared.fold.name, []).append(run)
    return found


def _require_same_seeds(runs: Sequence[Trained]) -> None:
    """Refuse folds that differ by their seeds: whose average stands in which window would be a choice."""
    seeds = {fold: [run.config.seed for run in group] for fold, group in by_fold(runs).items()}
    (first, wanted), *others = seeds.items()
    for fold, found in others:
        if found != wanted:
            raise ConfigError(
                f"run: fold {first} has seeds {wanted}, fold {fold} has {found}; name runs of the same seeds in each"
            )


def labels(runs: Sequence[Trained], kind: Kind) -> list[str]:
    """A short name for each run: its seed, or what sets it apart; of folds, for each in the order of `by_fold`."""
    if kind in ("single", "seeds"):
        return [f"seed {run.config.seed}" for run in runs]
    if kind in ("folds", "ensemble"):
        return [f"fold {name}" for name in by_fold(runs)]
    settings = [_settings(run.config) for run in runs]
    keys = sorted(_differing(settings))
    names = [", ".join(f"{key}={one.get(key)}" for key in keys)[:80] for one in settings]
    folders = [run.folder.name for run in runs]
    unique = [name and names.count(name) == 1 for name in names]
    return [name if one else f"{name} {place}".strip() for name, one, place in zip(names, unique, folders, strict=True)]


def confidence_lines(runs: Sequence[Trained], kind: Kind) -> dict[str, str]:
    """How much of its tilt each run is deployed with, by a name that sets the runs apart; "" of a single one."""
    if kind == "single":
        names = [""]
    elif kind == "ensemble":
        names = [f"fold {run.prepared.fold.name}, seed {run.config.seed}" for run in runs]
    elif kind == "folds":
        names = [f"fold {run.prepared.fold.name}" for run in runs]
    else:
        names = labels(runs, kind)
    known = zip(names, (run.confidence for run in runs), strict=True)
    return {name: one.line() for name, one in known if one is not None}


def _differing(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    keys = {key for one in settings for key in one}
    return {key for key in keys if len({repr(one.get(key)) for one in settings}) > 1}


def _settings(config: Config) -> dict[str, Any]:
    """What makes a run what it is, by key."""
    read = READS[config.stage]
    return {k: v for k, v in flatten(config.model_dump()).items() if under(k, read) and role_of(k) in _COMPARED}
