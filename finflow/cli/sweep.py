"""Several runs from one command line: the jobs of a sweep, handed to Hydra's launcher by their names.

Hydra launches, nothing else: what the jobs are is decided here, so that the same command finds its folder again and
only the jobs that are not finished are launched. Each runs in a process of its own (`finflow.sweeps.folder`).
`sweep.dry_run=true` says what a sweep would cost, and runs nothing.
"""

import contextlib
import itertools
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from finflow.artifacts.runs import command_for, command_line, override, program_of, typable
from finflow.cli import commands
from finflow.config.compose import CONF_DIR, compose_stage, load, one_line, parse, parse_override, up_to_date
from finflow.errors import ConfigError, FinFlowError, ParentError
from finflow.io.files import flatten
from finflow.schema import Config, role_of
from finflow.schema.fields import Role
from finflow.sweeps.cost import crossfit_of, time_left, told, work
from finflow.sweeps.folder import JobError, Manifest, Pin, SweepFolder, run_job
from finflow.sweeps.plan import Job, Plan, plan_of

LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_ray_launcher", "ray"),
}
"""Launcher -> its plugin, and the extra that installs it."""
_LAUNCHER = ("hydra/launcher", "hydra.launcher")
WATCHED, MANY = 0.5, 100
"""Seconds between looks at how far the jobs are; times more where there are more jobs than `MANY`."""


def params_of(stage: str, overrides: Sequence[str], typed: bool) -> dict[str, str] | None:
    """What a preset sweeps over, key -> values; None where the command line is a single run.

    typed : whether `-m` was.
    """
    own = ("experiment", "hydra.mode", "hydra.searchpath", "hydra.job.config_name")
    deciding = [text for text in overrides if text.split("=")[0] in own or text.startswith("hydra.sweeper.")]
    if not deciding:
        return {} if typed else None
    node = compose_stage(stage, deciding, with_hydra=True).hydra
    if not typed and getattr(node.mode, "name", None) != "MULTIRUN":
        return None
    return {str(key): str(values) for key, values in (node.sweeper.params or {}).items()}


def sweep(stage: str, overrides: Sequence[str], params: dict[str, str]) -> int:
    """Run the jobs that are not finished; 1 if any is not finished then."""
    _check_hydra(overrides)
    plan = plan_of(stage, overrides, params)
    configs = [parse(compose_stage(stage, job.overrides)) for job in plan.near]
    launcher = [text for text in overrides if text.split("=")[0].lstrip("+").startswith(_LAUNCHER)]
    compose_stage(stage, [*plan.jobs[0].overrides, *launcher], with_hydra=True)
    folder = SweepFolder(_place(stage, plan, configs, overrides))
    if folder.exists:
        _check_same(folder, plan, configs[0])
    names = [job.name for job in plan.jobs if folder.status(job.name).state != "finished"]
    of = "1 job" if len(plan.jobs) == 1 else f"{len(plan.jobs)} jobs"
    print(f"Sweep of {of}, {len(plan.jobs) - len(names)} finished before: {folder.path}", flush=True)
    if is_dry_run(stage, plan, overrides):
        tell_cost(stage, plan, configs, names)
        return 0
    if not folder.exists:
        from finflow.stages.parents import pin  # torch, which a sweep that goes on does not need

        command = (*plan.fixed, *(f"{key}={','.join(values)}" for key, values in plan.swept.items()))
        threads, settings = configs[0].hardware.threads, configs[0].model_dump()
        pins = pin(stage, plan)
        folder.begin(Manifest(stage, plan.id, command, threads, plan.swept, settings, plan.jobs, pins))
    # Ten seeds of one pretraining are not ten seeds of the method.
    parents = [pin.parent for pin in folder.manifest().pins.values() if pin.parent is not None]
    if parents:
        several = "" if len(set(parents)) == 1 else "s"
        print(f"Parents: {len(parents)} fine-tunings of {len(set(parents))} pretraining{several}", flush=True)
    if names:
        with watched(folder, names, len(plan.jobs)):
            _launch(stage, folder.path, names, [*plan.jobs[0].overrides, *launcher])
    return _close(folder, plan)


def _check_hydra(overrides: Sequence[str]) -> None:
    for text in overrides:
        key, _, value = text.partition("=")
        if key.startswith("hydra.run."):
            raise ConfigError(f"{text}: not read by a sweep; write hydra.sweep.dir=DIR")
        if key.startswith("hydra.sweep.") and key != "hydra.sweep.dir":
            raise ConfigError(f"{text}: a sweep names its jobs itself; leave it out")
        if key != "hydra/launcher" or value not in LAUNCHERS:
            continue
        if not _has(LAUNCHERS[value][0]):
            raise ConfigError(f"{text}: not installed; python -m pip install -e '.[{LAUNCHERS[value][1]}]'")
        if value == "submitit_slurm" and shutil.which("srun") is None:
            raise ConfigError(f"{text}: no srun on this machine; type it on a login node of the cluster")


def _has(plugin: str) -> bool:
    """Whether a plugin of Hydra is installed; without any the package that they share is missing as well."""
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def _place(stage: str, plan: Plan, configs: Sequence[Config], overrides: Sequence[str]) -> Path:
    """Folder of the sweep: as asked for, or named by its command line."""
    typed = [text for text in overrides if text.startswith("hydra.sweep.dir=")]
    if typed:
        value = str(parse_override(typed[-1]).value())
        if not value.strip():
            raise ConfigError("hydra.sweep.dir='': should not be empty; name a folder")
        path = Path(value)
        if path.exists() and not path.is_dir():
            raise ConfigError(f"hydra.sweep.dir={value}: a file; name a new folder")
        if path.is_dir() and any(path.iterdir()) and not SweepFolder(path).exists:
            raise ConfigError(f"hydra.sweep.dir={value}: not empty, and no sweep's; name a new folder")
        return path
    return Path(configs[0].output_root) / stage / _common_name([c.name for c in configs]) / f"sweep-{plan.id}"


def _common_name(names: Sequence[str]) -> str:
    """What the names of all jobs begin with, in whole parts: bcell-sp500 of bcell-sp500-all and bcell-sp500-crisis."""
    parts = zip(*(name.split("-") for name in names), strict=False)
    return "-".join(same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, parts)) or "mixed"


def _check_same(folder: SweepFolder, plan: Plan, first: Config) -> None:
    """Refuse a folder whose jobs were other ones, or were made with other settings."""
    found = folder.manifest()
    if found.id != plan.id:
        raise ConfigError(f"{folder.path}: holds the sweep of another command line; name another hydra.sweep.dir")
    before, now = flatten(up_to_date(deepcopy(dict(found.settings)))), flatten(first.model_dump())
    for key in {**before, **now}:
        if before.get(key) != now.get(key) and role_of(key) not in (Role.OUTPUT, Role.COMMAND):
            was = f"{key}={before.get(key)}, now {now.get(key)}"
            raise ConfigError(f"{folder.path}: its jobs were made with {was}; move the folder away, or set it back")


def _launch(stage: str, path: Path, names: Sequence[str], overrides: Sequence[str]) -> None:
    """Have Hydra's launcher call `run_job` for every name; a job that fails is in its status."""
    program = (sys.executable, *program_of(stage))
    place = str(path)

    def job(cfg: DictConfig) -> None:
        with contextlib.suppress(JobError):  # its status says so; raised, Hydra would print its own word about it
            run_job(Path(place), cfg.job, program)

    jobs = ",".join(f"'{name}'" for name in names)
    kept = [text for text in overrides if text.startswith(("hydra.searchpath=", *_LAUNCHER)) or "hydra" not in text[:6]]
    own = [f"+job={jobs}", "hydra.sweeper.params=null", override("hydra.sweep.dir", path), "hydra.sweep.subdir=."]
    try:
        with initialize_config_dir(str(CONF_DIR), job_name=stage, version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.multirun(config_name=stage, task_function=job, overrides=[*kept, *own])
    except Exception as error:
        if isinstance(error, FinFlowError) or not any(text.startswith("hydra/launcher=") for text in overrides):
            raise
        # The launcher's own: a job that SLURM ended, a worker that is gone. What became of the jobs, their files say.
        print(f"Launcher: {type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
    finally:
        (path / "multirun.yaml").unlink(missing_ok=True)  # Hydra's; all of it stands in the manifest


@contextlib.contextmanager
def watched(folder: SweepFolder, names: Sequence[str], total: int) -> Generator[None]:
    """Say when a job begins and when it ends, wherever it runs."""
    over = threading.Event()
    seen: dict[str, str] = {}
    left, took, widest = list(names), list[float](), 1

    def look() -> None:
        nonlocal widest
        for name in tuple(left):
            status = folder.status(name)
            if status.state in ("waiting", seen.get(name)) or (status.started or "") < begun:
                continue
            seen[name] = status.state
            if status.state != "running":
                left.remove(name)
            if status.state not in ("running", "interrupted"):
                took.append(status.seconds or 0.0)
            widest = max(widest, sum(seen.get(name) == "running" for name in left))
            if status.state == "running":
                said = f"running on {status.host}, see {folder.log(name)}"
            else:
                again = sum(state == "interrupted" for state in seen.values())  # by the same command
                lasted = "" if status.seconds is None else f" after {status.seconds:.0f} s"
                reason = f": {status.reason}" if status.reason else ""
                said = f"{status.state}{lasted}{reason}{time_left(took, len(left) + again, widest)}"
            print(f"Job {name} of {total}: {said}", flush=True)

    def watch() -> None:
        while not over.wait(WATCHED * max(1.0, len(left) / MANY)):
            look()

    begun = datetime.now(UTC).isoformat(timespec="seconds")
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


def _close(folder: SweepFolder, plan: Plan) -> int:
    """Print its table and page, how it went and what to type next."""
    following = command_line("sweep", [override("dir", folder.path)])
    states = Counter(folder.status(job.name).state for job in plan.jobs)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    if states["finished"]:
        try:
            following = commands.sweep(load("sweep", [override("dir", folder.path)]), folder.path).next_command
        except FinFlowError as error:
            print(f"warning: no table: {error}", file=sys.stderr)
    print(f"Jobs: {counts}\nRun folder: {folder.path}")
    print(f"Next: {typable(following)}", flush=True)
    if states["finished"] == len(plan.jobs):
        return 0
    left = len(plan.jobs) - states["finished"]
    print(f"error: {left} of {len(plan.jobs)} jobs not finished; the same command runs these again", file=sys.stderr)
    return 1


def is_dry_run(stage: str, plan: Plan, overrides: Sequence[str]) -> bool:
    """Whether `sweep.dry_run=true` was typed."""
    typed = [text for text in overrides if text.startswith("sweep.")]
    return bool(typed) and parse(compose_stage(stage, [*plan.jobs[0].overrides, *typed])).sweep.dry_run


def tell_cost(stage: str, plan: Plan, configs: Sequence[Config], names: Sequence[str]) -> None:
    """Say what the jobs that are left would take, and whether the weights that they would start from are missing."""
    wanted = [config for config in configs if config.init.weights is not None]
    pins, missing = dict[str, Pin](), ""
    if stage == "finetune" and wanted and names:
        if not Path(wanted[0].output_root).exists() and {config.init.weights for config in wanted} == {"latest"}:
            missing = f"init.weights=latest: nothing is published; run: {command_for('pretrain', wanted[0])}"
        else:
            from finflow.stages.parents import pin

            try:
                pins = pin(stage, plan)
            except ParentError as error:
                missing = str(error)
    print(told(weighed(stage, plan, configs, names, pins)) if names else "Nothing to run")
    if missing:
        print(f"warning: the sweep would end at once: {typable(missing)}", file=sys.stderr)


def weighed(
    stage: str, plan: Plan, configs: Sequence[Config], names: Sequence[str], pins: Mapping[str, Pin]
) -> list[tuple[Config, int]]:
    """Jobs that are left, those with equally much to do together: one configuration of each kind, and their number.

    A cross-fitting that several jobs share counts with the first of them.

    configs : of the jobs in `Plan.near`, which show the keys that change how much there is to do.
    pins : of jobs whose weights to start from are known.
    """
    usual = work(configs[0])
    pairs = list(zip(plan.near, configs, strict=True))
    heavy = sorted({key for job, config in pairs if work(config) != usual for key in plan.departing(job)})
    alike = crossfit_of(configs[0])
    fitting = sorted({key for job, config in pairs if crossfit_of(config) != alike for key in plan.departing(job)})
    kinds, made = dict[tuple[bool | str, ...], list[Job]](), set[tuple[str, ...]]()
    for job in plan.jobs:
        fitted = tuple(job.values[key] for key in fitting)
        if job.name in names:
            shared = alike is not None and fitted in made
            own = () if shared else fitted  # the parent of each decides whether it has one of its own
            kinds.setdefault((shared, *(job.values[key] for key in heavy), *own), []).append(job)
        made.add(fitted)

    def config(job: Job, shared: bool) -> Config:
        pinned = pins[job.name].overrides if job.name in pins else {}
        found = parse(compose_stage(stage, [*job.overrides, *(override(k, v) for k, v in pinned.items())]))
        return found.model_copy(update={"confidence": "none"}) if shared else found

    return [(config(jobs[0], bool(shared)), len(jobs)) for (shared, *_), jobs in kinds.items()]
