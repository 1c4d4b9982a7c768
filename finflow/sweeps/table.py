"""The jobs of a sweep as rows: values, outcome, validation figures. Safe to read at any time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finflow.artifacts.runs import RUN, SUMMARY, VALIDATION, under
from finflow.data.market import CALENDAR, TRADING_YEAR
from finflow.errors import ConfigError
from finflow.evaluation.files import read_validation
from finflow.evaluation.metrics import OBJECTIVES
from finflow.evaluation.result import Floats
from finflow.io.files import atomic_csv, read_json
from finflow.sweeps.folder import Manifest, Pin, State, SweepFolder

FIGURES = (
    *OBJECTIVES.values(), "validation_cvar95", "validation_turnover", "validation_effective_assets",
    "selected_episode", "dip",
)  # fmt: skip
REMEDY = "figures do not compare: remove the job's folder and run the sweep's command again"
REPLICATES = ("fold", "seed")
"""Keys that repeat a setting."""


@dataclass(frozen=True)
class Returns:
    """Net returns [R] of a job's policy on validation days, and those of 1/N at its frequency; `year` rows a year."""

    dates: NDArray[np.datetime64]
    policy: Floats
    benchmark: Floats
    year: int = TRADING_YEAR


@dataclass(frozen=True)
class Row:
    """One job; `figures` and `returns` are there once it is finished, `reason` says why it is not.

    code : commit that made it, with a + where the checkout had changes; empty where it is not finished or unknown.
    """

    job: str
    values: Mapping[str, str]
    state: State
    reason: str
    figures: Mapping[str, float | None]
    returns: Returns | None
    seconds: float | None
    code: str = ""

    @property
    def setting(self) -> tuple[str, ...]:
        """Its values without those of `REPLICATES`."""
        return tuple(value for key, value in self.values.items() if key not in REPLICATES)


@dataclass(frozen=True)
class Setting:
    """Jobs that differ in seed and fold alone.

    score : mean objective of the finished ones, None without any; complete : whether all of them have one.
    """

    values: Mapping[str, str]
    rows: tuple[Row, ...]
    score: float | None
    complete: bool


def read_rows(folder: SweepFolder, manifest: Manifest) -> tuple[Row, ...]:
    """One row per job, in the order of the manifest.

    Raises
    ------
    ConfigError
        If jobs used other data or other weights than their sweep had fixed.
    StorageError
        If a file of a job is damaged.
    """
    rows: list[Row] = []
    settled: dict[tuple[str, ...], tuple[str, str]] = {}
    for job in manifest.jobs:
        status, path = folder.status(job.name), folder.run_dir(job.name)
        row = Row(job.name, job.values, status.state, status.reason, {}, None, status.seconds)
        if status.state == "finished":
            facts, pin = read_json(path / RUN), manifest.pins.get(job.name, Pin({}))
            data, parent = str(facts["data_fingerprint"]), (facts.get("parent") or {}).get("sha256")
            market = tuple(value for key, value in job.values.items() if under(key, ("env",)))
            settled.setdefault(market, (data, job.name))
            other, first = settled[market] if pin.data is None else (pin.data, "the sweep's start")
            if data != other:
                raise ConfigError(f"{path}: made on data {data}, {first} on {other}; {REMEDY}")
            if pin.parent not in (None, parent):
                settled_on = f"the sweep's start settled on {str(pin.parent)[:12]}"
                raise ConfigError(f"{path}: made from weights {str(parent)[:12]}, {settled_on}; {REMEDY}")
            year = int((facts.get(CALENDAR) or {}).get("rows_a_year", TRADING_YEAR))
            returns = Returns(*read_validation(path / VALIDATION), year=year)
            row = replace(row, figures=_figures(path / SUMMARY), returns=returns, code=_code(facts))
        rows.append(row)
    return tuple(rows)


def settings_of(rows: Sequence[Row], objective: str) -> tuple[Setting, ...]:
    """Settings, the best first: complete ones before others, by mean objective, then in the order of their jobs."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.setting, []).append(row)
    found: list[Setting] = []
    for members in groups.values():
        values = {key: value for key, value in members[0].values.items() if key not in REPLICATES}
        complete = len(scored(members, objective)) == len(members)
        found.append(Setting(values, tuple(members), mean_of(members, objective), complete))
    return tuple(sorted(found, key=lambda s: (not s.complete, s.score is None, -(s.score or 0.0))))


def scored(rows: Sequence[Row], figure: str) -> list[tuple[Row, float]]:
    """The rows that have a figure, each with it."""
    return [(row, value) for row, value in ((row, row.figures.get(figure)) for row in rows) if value is not None]


def mean_of(rows: Sequence[Row], figure: str) -> float | None:
    """Mean of a figure over the rows that have it; None where none has."""
    found = [value for _, value in scored(rows, figure)]
    return float(np.mean(found)) if found else None


def write_table(path: Path, settings: Sequence[Setting], ranks: Sequence[int | None]) -> None:
    """`sweep.csv`: one row per job, the best setting's first; undefined figures are empty, seconds come last."""
    swept = settings[0].rows[0].values if settings else ()
    lines: list[Sequence[object]] = [["rank", "job", "state", *swept, *FIGURES, "reason", "seconds"]]
    for rank, setting in zip(ranks, settings, strict=True):
        for row in setting.rows:
            figures = (row.figures.get(name) for name in FIGURES)
            lines.append([rank, row.job, row.state, *row.values.values(), *figures, row.reason, row.seconds])
    atomic_csv(path, lines)


def _code(fact: Mapping[str, Any]) -> str:
    git = fact.get("git") or {}
    return f"{git['commit'][:12]}{'+' if git.get('dirty') else ''}" if "commit" in git else ""


def _figures(path: Path) -> dict[str, float | None]:
    summary = read_json(path)
    kept = {**summary.get("metrics", {}), **summary.get("selected", {}), **summary}
    return {name: None if kept.get(name) is None else float(kept[name]) for name in FIGURES}
