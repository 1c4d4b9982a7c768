"""The table of a sweep: its jobs, their validation figures, and the selection bias of the best one."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from finflow.artifacts.runs import CONFIG, SWEEP, command_for, command_line, override
from finflow.config.compose import from_yaml, load
from finflow.errors import ConfigError
from finflow.report.sweep import write_sweep_page
from finflow.schema import Config
from finflow.sweeps.folder import SweepFolder, preset_of, write_preset
from finflow.sweeps.leaderboard import Leaderboard, leaderboard_of
from finflow.sweeps.table import REPLICATES, write_table

TABLE, PAGE, BEST = "sweep.csv", "sweep.html", "best.yaml"


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep so far, and where its files lie.

    best : preset of the best setting; rerun : command that runs it again. None and empty until a job is finished.
    """

    run_dir: Path
    leaderboard: Leaderboard
    table: Path
    page: Path
    best: Path | None
    rerun: str
    next_command: str


def sweep_folder(output_root: str | Path, named: str) -> Path:
    """Folder of the sweep that `dir` names: its path, or `latest` for the newest in folders under `output_root`."""
    if named != "latest":
        return Path(named)
    found = [path for place in ("*", "*/*", "*/*/*") for path in Path(output_root).glob(f"{place}/{SWEEP}")]
    if not found:
        raise ConfigError(f"dir=latest: no sweep under {output_root}; make one with -m, or name it: dir=DIR")
    return max(found, key=lambda path: (path.stat().st_mtime, str(path))).parent


def collect_sweep(config: Config, out: Path | None = None) -> SweepResult:
    """Write `sweep.csv`, `sweep.html` and, once a job is finished, `best.yaml` into `out`, by default the sweep's.

    May run while jobs do, and again: everything is read anew.

    Raises
    ------
    ConfigError
        If `dir` names no sweep, or its jobs do not compare.
    StorageError
        If a file is damaged or cannot be written.
    """
    folder = SweepFolder(sweep_folder(config.output_root, config.dir))
    board, place = leaderboard_of(folder, config.sweep.objective), out or folder.path
    write_table(place / TABLE, board.settings, board.ranks)
    best = _write_best(place / BEST, folder, board)
    rerun = "" if best is None else command_line(board.manifest.stage, [override("experiment", best)])
    following = _next(folder, board)
    write_sweep_page(place / PAGE, board, str(folder.path), rerun, following)
    return SweepResult(place, board, place / TABLE, place / PAGE, best, rerun, following)


def _write_best(path: Path, folder: SweepFolder, board: Leaderboard) -> Path | None:
    """`best.yaml`: the best setting, as a preset; where there is none, one of an earlier table goes."""
    best = board.best
    if best is None:
        path.unlink(missing_ok=True)
        return None
    job = next(job for job in board.manifest.jobs if job.name == best.job)
    config = from_yaml(folder.run_dir(best.job) / CONFIG)
    again = command_line(config.stage, [override("experiment", path)])
    comment = (
        f"The best of {len(board.settings)} settings, {len(board.rows)} jobs: {board.objective} "
        f"{board.settings[0].score:.4f}, as in job {best.job}.",
        f"Again: {again}",
    )
    write_preset(path, preset_of(config, job.overrides), comment)
    return path


def _next(folder: SweepFolder, board: Leaderboard) -> str:
    """The next command: the rest of the sweep, or a use of the best setting (of the first, where all are the same)."""
    if board.finished < len(board.rows):
        return command_line(board.manifest.stage, ["-m", *board.manifest.command])
    runs = [str(folder.run_dir(row.job)) for row in board.settings[0].rows]
    config = from_yaml(Path(runs[0]) / CONFIG)
    if "ablation" in board.manifest.swept and not board.same:  # its settings are compared, not chosen from
        return command_for("evaluate", config, {"run": str(folder.path)})
    if board.manifest.stage == "pretrain":
        return _from_parents(folder, board, config, runs)
    return command_for("evaluate", config, {"run": runs[0] if len(runs) == 1 else runs})


def _from_parents(folder: SweepFolder, board: Leaderboard, config: Config, runs: list[str]) -> str:
    """The command that fine-tunes from the weights of all `runs`; `config` is that of the first."""
    if len(runs) == 1:
        return command_for("finetune", config, {"init.weights": runs[0]})
    swept, usual = board.manifest.swept, load("finetune")
    if not set(swept) <= set(REPLICATES):
        parents = ",".join(override("init.weights", run).partition("=")[2] for run in runs)
        return f"{command_for('finetune', config)} -m {shlex.quote(f'init.weights={parents}')}"
    # Each job starts from that of its own seed and fold.
    rest = config.model_copy(update={key: getattr(usual, key) for key in swept})
    command = command_for("finetune", rest, {"init.weights": folder.path})
    return " ".join([command, "-m", *(shlex.quote(f"{key}={','.join(values)}") for key, values in swept.items())])
