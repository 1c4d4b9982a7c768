"""The jobs of a command line: every combination of the values written as `a,b,c` or `range(5)`.

The same command line, in whatever order and by whichever launcher, gives the same sweep and the same jobs.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finflow.config.compose import conf_dirs, parse_override, sweep_values
from finflow.errors import ConfigError
from finflow.schema import role_of
from finflow.schema.fields import Role, digest

_SHARED = {Role.OUTPUT, Role.NAME}
"""Roles of keys that all jobs of a sweep share, as they share its preset: the place of results, and the name."""

_OF_SWEEP = ("sweep", "hydra.launcher", "hydra.mode", "hydra.run", "hydra.sweep", "hydra.sweeper")
"""Keys that a sweep reads itself; its jobs read the others."""
_NAME = "hydra.job.config_name="


def _of_sweep(key: str) -> bool:
    return any(f"{key.replace('/', '.')}.".startswith(f"{one}.") for one in _OF_SWEEP)


@dataclass(frozen=True)
class Job:
    """One job: its folder's name, the value of each swept key as typed, and its whole command line."""

    name: str
    values: Mapping[str, str]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    id : hash of the sorted command line; fixed : `key=value` of what all jobs share.
    swept : key -> its values, as typed, keys sorted; jobs : every combination, the last key turning fastest.
    """

    id: str
    fixed: tuple[str, ...]
    swept: Mapping[str, tuple[str, ...]]
    jobs: tuple[Job, ...]

    @property
    def near(self) -> list[Job]:
        """The first job, and those that differ from it by one key: each value of each key is in one of them."""
        return [job for job in self.jobs if len(self.departing(job)) <= 1]

    def departing(self, job: Job) -> list[str]:
        """Keys that have another value in `job` than in the first job."""
        return [key for key, choices in self.swept.items() if job.values[key] != choices[0]]


def plan_of(stage: str, overrides: Sequence[str], params: Mapping[str, str] | None = None) -> Plan:
    """Jobs of a command line for `stage`; keys that only the sweep reads are left out.

    So is `resume=true`: a sweep that was begun is resumed anyway.

    Parameters
    ----------
    overrides : as typed; of a key typed twice the last counts.
    params : key -> values that a preset sweeps over; a typed key takes their place.

    Raises
    ------
    ConfigError
        If values have no end, a key that all jobs share has several, or `resume` names a folder.
    """
    lines = [*(f"{key}={values}" for key, values in (params or {}).items()), *overrides]
    typed = dict(sorted({parse_override(text).key_or_group: text for text in lines}.items()))
    typed = {key: text for key, text in typed.items() if not _of_sweep(key)}
    folders = conf_dirs([text for key, text in typed.items() if key == "hydra.searchpath"])
    if typed.pop("resume", "resume=true").lower() not in ("resume=true", "resume=null"):
        raise ConfigError("resume: each job of a sweep goes on by itself; leave it out, or write resume=true")
    swept: dict[str, tuple[str, ...]] = {}
    for key, text in typed.items():
        values = sweep_values(stage, text, folders)
        if values is not None:
            swept[key] = values
            if key == "experiment" or role_of(key) in _SHARED:
                raise ConfigError(f"{text}: a whole sweep shares one; give it one value")
    fixed = tuple(text for key, text in typed.items() if key not in swept)
    identity = [text for text in fixed if not text.startswith(("output_root=", "hydra")) or text.startswith(_NAME)]
    combinations = list(itertools.product(*swept.values()))
    width = len(str(len(combinations) - 1))
    jobs: list[Job] = []
    for number, chosen in enumerate(combinations):
        values = dict(zip(swept, chosen, strict=True))
        own = [f"{key}={value}" for key, value in values.items()]
        jobs.append(Job(f"{number:0{width}d}-{digest([*identity, *own])[:8]}", values, (*fixed, *own)))
    return Plan(digest([stage, identity, list(swept.items())])[:12], fixed, swept, tuple(jobs))
