"""The folder of a training run, new or of an interrupted run: it is locked and checked before anything else.

Before it, the arguments of the API and the file that `out` names are checked: one line for what is wrong.
"""

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finflow.artifacts.checkpoints import FOLDER, Checkpoints, Found
from finflow.artifacts.provenance import CONFIG, RUN, SUMMARY
from finflow.artifacts.runs import run_files, state_of, stored_config, under
from finflow.config.compose import from_yaml, run_folder
from finflow.errors import ConfigError, DataError, StorageError
from finflow.io.files import flatten, locked, read_json, remove_leftovers, storage_errors
from finflow.schema import ALGORITHMS, GROWS, READS, Config, algorithms_of, role_of
from finflow.schema.fields import Role
from finflow.tracking.sink import Mark, Position, differs, warn

_FREE = {Role.OUTPUT, Role.SAVING, Role.TRACKING, Role.HOST, Role.SPEED}
"""What may change when a run is resumed: none of it changes more than the last bits of a result."""


@dataclass
class RunDirectory:
    """Folder of a run.

    Attributes
    ----------
    record : `run.json` of the attempt that was interrupted, empty for a new run.
    changed : keys whose values differ from that attempt's -> its value, and this one's.
    found : checkpoint to go on from; None starts from the beginning.
    """

    folder: Path
    store: Checkpoints
    held: contextlib.ExitStack
    resumed: bool = False
    record: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, list[Any]] = field(default_factory=dict)
    found: Found | None = None

    def claim(self) -> None:
        """Make and lock the folder of a new run; remove `summary.json`, which says "done", of a resumed one.

        Raises
        ------
        ConfigError
            If there is anything in it.
        LockedError, StorageError
            See `locked`.
        """
        if self.resumed:
            with storage_errors(self.folder / SUMMARY, "removed"):
                (self.folder / SUMMARY).unlink(missing_ok=True)
            return
        self.held.enter_context(locked(self.folder))
        remove_leftovers(self.folder)
        if any(not path.name.startswith(".") and path.suffix != ".log" for path in self.folder.iterdir()):  # Hydra's
            raise ConfigError(f"{self.folder}: not empty; name a new folder, or write resume=true if a run was cut off")

    @property
    def since(self) -> Position | None:
        """Where `metrics.jsonl` and `alerts.jsonl` ended at the checkpoint."""
        return None if self.found is None else _position(self.found.facts)

    def same(self, made_of: Mapping[str, Any]) -> None:
        """Refuse to go on from a checkpoint of a run that was made of something else.

        Parameters
        ----------
        made_of : hashes by the name of what they are of, as the checkpoint keeps them.

        Raises
        ------
        DataError
            Naming what has changed.
        """
        kept = {} if self.found is None else self.found.facts["made_of"]
        changed = [name for name, value in made_of.items() if name in kept and kept[name] != value]
        if changed:
            what = " and ".join(changed)
            raise DataError(f"{self.folder}: its {what} changed since it began; restore it, or start a new run")

    def history(self) -> list[dict[str, Any]]:
        """Earlier resumptions, and this one."""
        earlier = self.record.get("resumed", [])
        if not self.resumed:
            return earlier
        name = None if self.found is None else self.found.path.name
        return [*earlier, {"from": name, "changed": self.changed}]


@contextlib.contextmanager
def placed(config: Config, run_dir: Path | None) -> Generator[RunDirectory]:
    """RunDirectory of a training run; its lock is held until the block ends.

    Raises
    ------
    ConfigError
        If there is nothing to resume, or the configuration has changed; the keys are named.
    LockedError
        If another process writes there.
    StorageError
        If no checkpoint is whole, though there are some.
    """
    folder, keep = resumed_folder(config, run_dir), config.checkpoint.max_checkpoints
    with contextlib.ExitStack() as held:
        if folder is None or state_of(folder) == "new":
            if folder is not None:
                warn(f"{folder}: no run to go on with; it starts from the beginning")
            own = folder or run_dir or Path(run_folder(config.output_root, config.stage, config.name, config.seed))
            yield RunDirectory(own, Checkpoints(own, keep), held)
            return
        held.enter_context(locked(folder))
        for part in (folder, folder / FOLDER):
            remove_leftovers(part)
        stored, store = stored_config(folder), Checkpoints(folder, keep)
        place = RunDirectory(folder, store, held, resumed=True, changed=_allowed_changes(folder, stored, config))
        place.record = read_json(folder / RUN) if (folder / RUN).exists() else {}
        place.found = _found(config, store)
        if state_of(folder) == "finished":
            _refuse_finished(config, place)
        threads = place.record.get("threads", config.hardware.threads)
        if threads != config.hardware.threads:
            warn(f"hardware.threads={config.hardware.threads}: the run began with {threads}; the bits may differ")
        yield place


def resumed_folder(config: Config, run_dir: Path | None) -> Path | None:
    """Folder of the run that `config.resume` asks for, or None for a new run.

    Parameters
    ----------
    run_dir : folder asked for besides; it may not exist yet, where a run was killed before it made one.

    Raises
    ------
    ConfigError
        If there is no such run; for `resume=true` the line names the keys that differ from the nearest.
    """
    if config.resume is None:
        return None
    if config.resume is True:
        return run_dir or _newest_unfinished(config)
    path = Path(config.resume)
    folder = _holder(path) or path
    if not path.exists() or state_of(folder) == "new":
        raise ConfigError(f"resume={path}: no run folder and no checkpoint of one; name one, or write resume=true")
    if run_dir is not None and run_dir.resolve() != folder.resolve():
        raise ConfigError(f"resume={path}: goes on in its own folder, {folder}; leave out the folder {run_dir}")
    return folder


def _newest_unfinished(config: Config) -> Path:
    """Newest unfinished run of the same settings."""
    near: list[tuple[bool, int, float, Path, dict[str, list[Any]]]] = []
    for path in run_files(Path(config.output_root), config.stage, CONFIG):
        if state_of(path.parent) != "unfinished":
            continue
        try:
            changed = _refused(config.stage, _changes(from_yaml(path), config))
        except ConfigError:
            continue  # of another version, or damaged: it can be named, not found
        near.append((not changed, -len(changed), path.stat().st_mtime, path.parent, changed))
    place = Path(config.output_root) / config.stage
    if not near:
        raise ConfigError(f"resume=true: no unfinished run under {place}; leave out resume, or name a run folder")
    same, _, _, folder, changed = max(near, key=lambda one: (one[0], one[1], one[2], str(one[3])))
    if not same:
        raise ConfigError(f"resume=true: no unfinished run of these settings; {folder} has {_listing(changed)}")
    return folder


def _found(config: Config, store: Checkpoints) -> Found | None:
    if isinstance(config.resume, str) and _holder(Path(config.resume)):
        found = store.named(Path(config.resume))
        reason = differs(store.run_dir, _position(found.facts))
        if reason is not None:
            raise StorageError(f"{reason}; restore it, or start a new run")
        return found
    found = store.newest(lambda facts: differs(store.run_dir, _position(facts)))
    if found is not None and found.refused:
        first, *others = found.refused
        more = f" (and {len(others)} more)" if others else ""
        warn(f"{first}{more}; going on from {found.path}")
    return found


def _holder(path: Path) -> Path | None:
    """Run folder that a file among a run's checkpoints belongs to; None for any other path."""
    whole = path if path.parent.name else path.absolute()  # the name of a file in the current folder
    return whole.parent.parent if whole.parent.name == FOLDER and not path.is_dir() else None


def _position(facts: Mapping[str, Any]) -> Position:
    return {name: Mark(length, sha256) for name, (length, sha256) in facts["sinks"].items()}


def _refuse_finished(config: Config, place: RunDirectory) -> None:
    """Refuse to resume a finished run, unless it is given more to do."""
    key = GROWS[config.stage]
    if config.stage == "pretrain":  # others may have started from its weights, which would change under them
        raise ConfigError(f"{place.folder}: finished, and its weights published; start a new run without resume")
    if place.found is None or key not in place.changed:
        raise ConfigError(f"{place.folder}: finished; for more, raise {key}, else leave out resume")


def _allowed_changes(folder: Path, stored: Config, config: Config) -> dict[str, list[Any]]:
    if stored.stage != config.stage:
        raise ConfigError(f"resume: {folder} is a run of {stored.stage}, not of {config.stage}; name another")
    changed = _changes(stored, config)
    refused = _refused(config.stage, changed)
    if refused:
        raise ConfigError(f"resume: {folder} has {_listing(refused)}; give the same, or start a new run without resume")
    return changed


def _changes(stored: Config, config: Config) -> dict[str, list[Any]]:
    """Keys that the stage reads and whose values differ: the stored one, and this one."""
    then, now = flatten(stored.model_dump()), flatten(config.model_dump())
    keys = [key for key in {**then, **now} if under(key, READS[config.stage]) and role_of(key) is not Role.COMMAND]
    return {key: [then.get(key), now.get(key)] for key in keys if then.get(key) != now.get(key)}


def _refused(stage: str, changed: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Those changes that a resumed run may not have."""
    return {
        key: values
        for key, values in changed.items()
        if role_of(key) not in _FREE and not (key == GROWS[stage] and values[1] > values[0])
    }


def _listing(changed: Mapping[str, list[Any]]) -> str:
    shown = [f"{key}={then} (here {now})" for key, (then, now) in list(changed.items())[:4]]
    return ", ".join(shown) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")


def check_config(config: object, stage: str) -> None:
    """Refuse what is no configuration of `stage`.

    Raises
    ------
    ConfigError
        Naming the argument and where to take one from.
    """
    take = f'take finflow.load("{stage}", [...])'
    if not isinstance(config, Config):
        raise ConfigError(f"config={config!r:.80}: no configuration; {take}")
    if config.stage != stage:
        raise ConfigError(f"config: made for {config.stage}; {take}")
    if stage in ALGORITHMS and config.algo.name not in algorithms_of(stage):
        choices = ", ".join(algorithms_of(stage))
        raise ConfigError(f"algo={config.algo.name}: not an algorithm of {stage}; choose one of {choices}")


def check_arguments(config: object, stage: str, run_dir: object) -> Path | None:
    """Check the configuration of a stage and its folder, which may be a text; returns the folder.

    Raises
    ------
    ConfigError
        Naming the argument that is wrong.
    """
    check_config(config, stage)
    if not isinstance(run_dir, str | Path | None):
        raise ConfigError(f"run_dir={run_dir!r:.80}: no path; name a new folder")
    return None if run_dir is None else Path(run_dir)


def out_file(out: str) -> Path:
    """The file to write; its folder need not exist yet.

    Raises
    ------
    ConfigError
        If it is a folder, or would lie in a file.
    """
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"out={out}: a folder; name a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"out={out}: {above} is a file; name another folder")
    return path
