"""Finding a finished run: the newest of a stage, or the one that the user names."""

from datetime import UTC, datetime
from pathlib import Path

from finflow.artifacts.files import read_json
from finflow.artifacts.provenance import RUN, SUMMARY
from finflow.errors import ConfigError, StorageError

TRAINED = ("finetune", "pretrain")
"""Stages whose runs hold a policy; a pretrained one can be evaluated as well."""


def newest_run(output_root: str | Path, *stages: str) -> Path:
    """Folder of the newest finished run of any of `stages`, sweep jobs included.

    Newest by the time at which it finished; a run without `summary.json` is not finished.

    Raises
    ------
    ConfigError
        If there is none, with the command to run.
    """
    root = Path(output_root)
    found = [
        summary.parent
        for stage in stages
        for pattern in ("*/*/", "*/*/*/")
        for summary in (root / stage).glob(pattern + SUMMARY)
    ]
    if not found:
        places = " or ".join(str(root / stage) for stage in stages)
        raise ConfigError(f"run=latest: no finished run under {places}; run: python experiments/{stages[0]}.py")
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
    command = f"python experiments/{stages[0]}.py"
    if not folder.is_dir():
        raise ConfigError(f"run={run}: no such folder; name a run folder, or make one: {command}")
    if not (folder / SUMMARY).exists():
        raise ConfigError(f"run={run}: not a finished run (it has no {SUMMARY}); name another, or make one: {command}")
    return folder


def _finished(folder: Path) -> str:
    try:
        finished = read_json(folder / RUN).get("finished")
    except StorageError:
        finished = None
    if isinstance(finished, str):
        return finished
    written = (folder / SUMMARY).stat().st_mtime
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="microseconds")
