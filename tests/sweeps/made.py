"""Sweeps' folders as their jobs would leave them, without running any."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from finflow.config.compose import load
from finflow.sweeps.folder import Manifest, Pin, State, Status, SweepFolder
from finflow.sweeps.plan import Job, plan_of

DAYS = 400
DATES = np.datetime64("2015-01-01") + np.arange(DAYS)
Score = Callable[[Mapping[str, str]], float]


def made_sweep(
    path: Path, overrides: Sequence[str], pins: Mapping[str, Pin] | None = None, stage: str = "finetune"
) -> SweepFolder:
    """A sweep that has begun: its manifest alone."""
    plan = plan_of(stage, overrides)
    folder = SweepFolder(path)
    settings = load(stage, ["evaluation.objective=sharpe", *plan.jobs[0].overrides]).model_dump()
    command = (*plan.fixed, *(f"{key}={','.join(values)}" for key, values in plan.swept.items()))
    folder.begin(Manifest(stage, plan.id, command, 1, plan.swept, settings, plan.jobs, pins or {}))
    return folder


def finish(
    folder: SweepFolder,
    job: Job,
    sharpe: float,
    *,
    active: float = 0.0,
    data: str = "d",
    parent: str = "p",
    code: str = "c" * 40,
    dirty: bool = False,
) -> None:
    """Leave what a finished job leaves; its policy earns `active` a day more than 1/N on average."""
    place = folder.run_dir(job.name)
    place.mkdir()
    rng = np.random.default_rng(int(job.name.split("-")[0]))
    benchmark = 0.01 * np.random.default_rng(1000).standard_normal(DAYS)
    lead = active + 0.002 * rng.standard_normal(DAYS)
    rows = [f"{d},{b + a!r},{b!r}" for d, b, a in zip(DATES, benchmark.tolist(), lead.tolist(), strict=True)]
    (place / "validation.csv").write_text("\n".join(["date,policy,benchmark", *rows]) + "\n")
    (place / "config.yaml").write_text(json.dumps(load(folder.manifest().stage, job.overrides).model_dump()))
    facts = {"data_fingerprint": data, "parent": {"sha256": parent}, "git": {"commit": code, "dirty": dirty}}
    (place / "run.json").write_text(json.dumps(facts))
    figures = {
        "validation_sharpe": sharpe,
        "validation_active_information_ratio": -sharpe,
        "validation_cvar95": 0.02,
        "validation_turnover": 3.0,
    }
    summary = {"selected": figures, "selected_episode": 8, "dip": -0.1}
    folder.record(job.name, Status("finished", exit_code=0, seconds=2.5))
    (place / "summary.json").write_text(json.dumps(summary))


def fail(folder: SweepFolder, job: Job, state: State, reason: str) -> None:
    """Leave what an unfinished job leaves."""
    folder.run_dir(job.name).mkdir(exist_ok=True)
    folder.record(job.name, Status(state, reason, 5, seconds=1.0))
