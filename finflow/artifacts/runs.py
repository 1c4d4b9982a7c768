"""Finds a finished run: the newest of a stage, or one that the user names."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from finflow.artifacts.commands import command_under, stored_config
from finflow.artifacts.names import CONFIG, RUN, SUMMARY, SWEEP
from finflow.config.compose import run_folder
from finflow.errors import ConfigError, StorageError
from finflow.io.files import read_json

HEAD, JUDGED = "test_ledger_head", "weights_judged"
TRAINED = ("finetune", "pretrain")
"""Stages whose runs hold a policy; a pretrained one can be evaluated as well."""
OPENING = ("evaluate", "judge")
"""Stages that open test windows."""


def newest_run(output_root: str | Path, *stages: str) -> Path:
    """Folder of the newest finished run of any of `stages`, sweep jobs included.

    Newest by the time at which it finished; a run without `summary.json` is not finished.

    Raises
    ------
    ConfigError
        If there is none, with the command to run.
    """
    root = Path(output_root)
    found = [summary.parent for stage in stages for summary in run_files(root, stage, SUMMARY)]
    if not found:
        places = " or ".join(str(root / stage) for stage in stages)
        raise ConfigError(f"run=latest: no finished run under {places}; run: {command_under(stages[0], output_root)}")
    return max(found, key=lambda folder: (_finished(folder), str(folder)))


def resolve_run(output_root: str | Path, run: str, *stages: str) -> Path:
    """Folder of the run that `run` names: `latest`, or the path of a run folder.

    Parameters
    ----------
    stages : among which `latest` looks; by default those that train.

    Raises
    ------
    ConfigError
        If there is no such folder, or its run is not finished.
    """
    stages = stages or TRAINED
    if run == "latest":
        return newest_run(output_root, *stages)
    folder = Path(run)
    command = command_under(stages[0], output_root)
    if not folder.is_dir():
        raise ConfigError(f"run={run}: no such folder; name a run folder, or make one: {command}")
    if not (folder / SUMMARY).exists():
        raise ConfigError(f"run={run}: not a finished run (it has no {SUMMARY}); name another, or make one: {command}")
    return folder


def named_runs(run: str | Sequence[str]) -> list[str]:
    """The runs that `run` names one by one; the folder of a sweep stands for all of its jobs, in their order.

    Raises
    ------
    ConfigError
        If a job of a sweep is not finished: to leave it out would be a choice among results.
    """
    found: list[str] = []
    for one in [run] if isinstance(run, str) else run:
        manifest = Path(one) / SWEEP
        if not manifest.exists():
            found.append(one)
            continue
        jobs = [Path(one) / str(job["name"]) for job in read_json(manifest)["jobs"]]
        open_ = [job.name for job in jobs if state_of(job) != "finished"]
        if open_:
            raise ConfigError(f"run={one}: {len(open_)} of its {len(jobs)} jobs not finished; type its command again")
        found += map(str, jobs)
    return found


def state_of(folder: Path) -> Literal["new", "unfinished", "finished"]:
    """Whether `folder` holds a run that is done, one that `resume=true` would go on with, or none yet."""
    if (folder / SUMMARY).exists():
        return "finished"
    return "unfinished" if (folder / CONFIG).exists() else "new"


def judged_folder(output_root: str | Path, stage: str, run: str | Sequence[str]) -> Path:
    """New folder of a stage that judges a trained run, named as that run is: the first, where there are several.

    Raises
    ------
    ConfigError
        If there is no such finished run, or its `config.yaml` cannot be read.
    """
    own = stored_config(resolve_run(output_root, named_runs(run)[0]))
    return Path(run_folder(str(output_root), stage, own.name, own.seed))


def opened_by(output_root: str | Path, weights: Sequence[str], fold: str, test: list[str]) -> Path | None:
    """Folder with the tables of the newest evaluation of one policy in its test window; None where there is none.

    A run is known by the hash of its weights, so that it may have been moved since. An evaluation that averaged
    other runs followed another portfolio; of settings compared the first alone has its tables stored.

    Parameters
    ----------
    weights : SHA-256 of the weights of the run, or of all seeds that the policy averages.
    fold, test : name of the fold, and first and last day of its test window.
    """
    found: list[tuple[str, Path]] = []
    for path in run_files(Path(output_root), "evaluate", SUMMARY):
        try:
            record = read_json(path.parent / RUN)
        except StorageError:
            continue
        judged, kind = record.get(JUDGED), record.get("kind")
        if not isinstance(judged, list):
            continue
        stitched = kind in ("folds", "ensemble")
        place = path.parent / f"fold-{fold}" if stitched else path.parent
        if stitched:  # run.json names the first fold's days alone; each fold has a folder of its own
            seeds = 1 if kind == "folds" else len(judged) // max(len(list(path.parent.glob("fold-*"))), 1)
            same = len(weights) == seeds and not Counter(weights) - Counter(judged)
        else:
            same = Counter(weights) == Counter(judged) and record.get("fold", {}).get("test") == test
        if same and (place / "weights.csv").exists():
            found.append((_finished(path.parent), place))
    return max(found)[1] if found else None


def noted_heads(output_root: str | Path, stages: Sequence[str], key: str) -> dict[str, str]:
    """Head hash of a log that each earlier run of `stages` noted under `key` in its `run.json`, by its folder."""
    noted: dict[str, str] = {}
    for path in (found for stage in stages for found in run_files(Path(output_root), stage, RUN)):
        try:
            head = read_json(path).get(key)
        except StorageError:
            continue
        if isinstance(head, str):
            noted[str(path.parent)] = head
    return noted


def run_files(root: Path, stage: str, name: str) -> list[Path]:
    """Files `name` of the runs of `stage`, sweep jobs included."""
    return [path for pattern in ("*/*/", "*/*/*/") for path in (root / stage).glob(pattern + name)]


def _finished(folder: Path) -> str:
    try:
        finished = read_json(folder / RUN).get("finished")
    except StorageError:
        finished = None
    if isinstance(finished, str):
        return finished
    written = (folder / SUMMARY).stat().st_mtime
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="microseconds")
