"""Runs: the names of their files, where a finished one lies, what goes on from one, and the arguments of the API."""

import re
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any, Literal

import yaml

from finflow.config.compose import CONF_DIR, MISSING, from_yaml, load, plain_yaml
from finflow.errors import ConfigError, StorageError
from finflow.io.files import flatten, read_json
from finflow.plugins import folders_used
from finflow.schema import ALGORITHMS, READS, Config, algorithms_of, role_of
from finflow.schema.fields import CARRIED, Role
from finflow.schema.sections import OWN_SOURCES

CHECKPOINTS = "checkpoints"
VALIDATION = "validation.csv"
CONFIG, RUN, SUMMARY, WEIGHTS = "config.yaml", "run.json", "summary.json", "weights.safetensors"
SWEEP = "sweep.json"
"""In the folder of a sweep: what its jobs are."""


_DATA = {Role.DATA, Role.FILE, Role.MARKET, Role.ENVIRONMENT, Role.OUTPUT}
"""Roles of keys that are kept when a run of an earlier version is trained again."""

_OPTIONS = {"yahoo": "dow30"}
"""Source -> option of the group `env`, where the names differ."""

_DEMO = flatten(yaml.safe_load((CONF_DIR / "experiment" / "demo.yaml").read_text()))

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
# Bare, these would be read as a float, null, a bool; a whole number reads back as the text that it was.
_OTHER = re.compile(r"(?![1-9]\d*$)-?[\d_.]+(e-?\d+)?|null|true|false|nan|-?inf", re.IGNORECASE)

_MODULE = ("finflow", "__main__.py")
_BEFORE_QUOTE = re.compile(r'(\\+)(?="|$)')


def command_for(stage: str, config: Config, values: Mapping[str, Any] | None = None) -> str:
    """Command for `stage` whose data, folds, budgets and network are those of `config`, a run's of any stage.

    For example `python experiments/pretrain.py experiment=demo env=csv env.path=prices.csv`. `values` is what it shall
    say besides, by key, for example `{"run": folder}`; quoted here.
    """
    return _command(stage, flatten(config.model_dump()), CARRIED, values or {})


def _command(stage: str, wanted: Mapping[str, Any], roles: Collection[Role], values: Mapping[str, Any]) -> str:
    """Command that sets those keys of `wanted` that have one of `roles`, where the stage's own values differ."""
    base: list[str] = []
    own = flatten(load(stage).model_dump())
    if stage in ALGORITHMS:
        if _DEMO.items() <= wanted.items():
            base.append("experiment=demo")
        if wanted.get("plugins"):
            base.append(override("plugins", wanted["plugins"]))
        source = wanted["env.source"]
        if source != own["env.source"]:
            option = [f"env={_OPTIONS.get(source, source)}"]
            base += option if source in OWN_SOURCES else ["env=csv", override("env.source", source)]
            if wanted["env.path"] is not None:
                base.append(override("env.path", wanted["env.path"]))
        if base:
            own = flatten(load(stage, base).model_dump())
    differing = {
        key: wanted[key]
        for key, value in own.items()
        if key in wanted and wanted[key] != value and role_of(key) in roles and under(key, READS[stage])
    }
    return command_line(stage, [*base, *(override(*each) for each in {**differing, **values}.items())])


def stored_config(folder: Path) -> Config:
    """The configuration of a run folder.

    Raises
    ------
    ConfigError
        If it cannot be read; of a run of an earlier version, which lacks keys, with the command that trains it again.
    """
    try:
        return from_yaml(folder / CONFIG)
    except ConfigError as error:
        if MISSING not in str(error):
            raise
        stored = flatten(plain_yaml(folder / CONFIG))
        try:  # on its data; budgets and methods are today's
            again = _command(stored["stage"], stored, _DATA, {})
        except (KeyError, ConfigError):
            raise error from None
        raise ConfigError(f"{folder}: made by an earlier version of FinFlow; train it again: {again}") from error


def command_under(stage: str, output_root: str | Path) -> str:
    """Command for `stage` with its own settings, under `output_root`."""
    own = load(stage).output_root
    return command_line(stage, [] if str(output_root) == own else [f"output_root={_hydra(output_root)}"])


def override(key: str, value: Any) -> str:
    """`key=value` as a word of a command line, the value quoted for Hydra where it needs to be."""
    return f"{key}={_hydra(value)}"


def command_line(stage: str, overrides: list[str]) -> str:
    """What a user types to run `stage`, as this program was started, its words quoted for the shell."""
    script = Path(sys.argv[0])
    start = f"python experiments/{stage}.py"
    if script.name == "finflow":
        start = f"finflow {stage}"
    elif script.parts[-2:] == _MODULE:
        start = f"python -m finflow {stage}"
    here = Path.cwd()
    folders = [str(one.relative_to(here) if one.is_relative_to(here) else one) for one in folders_used()]
    found = ["--config-dir", *folders] if len(folders) == 1 else [override("hydra.searchpath", folders)] * bool(folders)
    if any(word.startswith("hydra.searchpath=") for word in overrides):
        found = []
    return " ".join([start, *(shlex.quote(word) for word in [*found, *overrides])])


def program_of(stage: str) -> tuple[str, ...]:
    """Arguments of `python` that start this program again, for a job of `stage`."""
    script = Path(sys.argv[0])
    packaged = script.name == "finflow" or script.parts[-2:] == _MODULE
    return ("-m", "finflow", stage) if packaged else (str(script.resolve()),)


def typable(text: str) -> str:
    """`text` with commands that work in this shell: where `python` is another Python, they name this one's path."""
    found, own = which("python"), Path(sys.executable)
    if found is not None and Path(found).parent.samefile(own.parent):
        return text
    place = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    text = re.sub(r"\bpython (?=experiments/|-m finflow )", lambda _: f"{shlex.quote(str(place))} ", text)
    program = shlex.quote(str(place.with_name("finflow")))
    return re.sub(r"(^|: )finflow (?=[a-z])", lambda found: f"{found[1]}{program} ", text)


def under(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `key` is one of `prefixes` or lies below one."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _hydra(value: Any) -> str:
    """A value in the grammar of Hydra's command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_hydra(part) for part in value) + "]"
    if isinstance(value, str | Path):
        # A text that reads as a number, a bool or null must stay a text.
        text = str(value)
        if _PLAIN.fullmatch(text) and not _OTHER.fullmatch(text):
            return text
        # Backslashes count before a quote alone, and `${` would be looked up.
        return '"' + _BEFORE_QUOTE.sub(r"\1\1", text).replace('"', r"\"").replace("${", r"\${") + '"'
    return str(value)


HEAD, JUDGED = "test_ledger_head", "weights_judged"
TRAINED = ("finetune", "pretrain")
"""Stages whose runs hold a policy; a pretrained one can be evaluated as well."""
OPENING = ("evaluate", "judge")
"""Stages that open test windows."""


def newest_run(output_root: str | Path, *stages: str) -> Path:
    """Folder of the run of any of `stages`, sweep jobs included, that finished last.

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
    """Folder of the run that `run` names: `latest` of any of `stages` (by default those that train), or a path.

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
    """When a run was done; of one whose `run.json` is damaged nothing, which is before every other."""
    try:
        return read_json(folder / RUN).get("finished") or ""
    except StorageError:
        return ""


def check_arguments(config: object, stage: str, run_dir: object = None) -> Path | None:
    """Check the configuration of a stage and its folder, which may be a text; returns the folder.

    Raises
    ------
    ConfigError
        Naming the argument that is wrong, and where to take a right one from.
    """
    take = f'take finflow.load("{stage}", [...])'
    if not isinstance(config, Config):
        raise ConfigError(f"config={config!r:.80}: no configuration; {take}")
    if config.stage != stage:
        raise ConfigError(f"config: made for {config.stage}; {take}")
    if stage in ALGORITHMS and config.algo.name not in algorithms_of(stage):
        choices = ", ".join(algorithms_of(stage))
        raise ConfigError(f"algo={config.algo.name}: not an algorithm of {stage}; choose one of {choices}")
    if not isinstance(run_dir, str | Path | None):
        raise ConfigError(f"run_dir={run_dir!r:.80}: no path; name a new folder")
    return None if run_dir is None else Path(run_dir)


def out_file(out: str) -> Path:
    """The file to write, whose folder need not exist yet; a `ConfigError` if it is a folder or would lie in a file."""
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"out={out}: a folder; name a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"out={out}: {above} is a file; name another folder")
    return path
