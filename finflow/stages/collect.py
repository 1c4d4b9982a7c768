"""Offline data by hand: one file that `offline.dataset=PATH` reads."""

from pathlib import Path

from finflow.artifacts.commands import command_for
from finflow.artifacts.provenance import Stopwatch, run_record, write_config, write_run, write_summary
from finflow.config import run_folder
from finflow.data.calendar import CALENDAR
from finflow.envs.collect import dataset_bytes
from finflow.io.files import atomic_write, storage_errors
from finflow.schema import Config
from finflow.stages.offline_data import collected, dataset_facts
from finflow.stages.out_file import out_file
from finflow.stages.prepare import prepare, use_hardware
from finflow.stages.results import CollectResult


def collect(config: Config, run_dir: Path | None = None) -> CollectResult:
    """Run `config.episodes` behaviours through train days and write their decisions to `config.out`.

    Raises
    ------
    ConfigError, DataError, StorageError
        One line each, see `finflow.errors`.
    """
    stopwatch, path = Stopwatch(), out_file(config.out)
    with stopwatch.phase("prepare"):
        prepared = prepare(config, use_hardware(config.hardware))
    folder = run_dir or Path(run_folder(config.output_root, config.stage, config.name, config.seed))
    with storage_errors(folder, "made"):
        folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    with stopwatch.phase("collect"):
        dataset = collected(config, prepared, config.episodes)
    atomic_write(path, dataset_bytes(dataset))
    facts = {
        CALENDAR: prepared.market.calendar.facts(),
        "dataset": str(path),
        "dataset_facts": dataset_facts(config, prepared),
    }
    record = run_record(
        config,
        prepared.market.fingerprint,
        prepared.dates,
        config.seed,
        None,
        stopwatch,
        finished=True,
        facts=facts,
    )
    write_run(folder, record)
    write_summary(folder, {"stage": "collect", "transitions": len(dataset), "episodes": config.episodes})
    following = command_for("pretrain", config, {"offline.dataset": str(path)})
    return CollectResult(folder, path, len(dataset), following, prepared.market.calendar.line())
