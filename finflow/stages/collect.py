"""Offline data by hand: one file that `offline.dataset=PATH` reads."""

from pathlib import Path

from finflow.artifacts.provenance import Stopwatch, finish_run, made_folder, run_record
from finflow.artifacts.runs import check_arguments, command_for, out_file
from finflow.envs.collect import dataset_bytes
from finflow.io.files import atomic_write
from finflow.schema import Config
from finflow.stages.prepare import collected, dataset_facts, fit, load_market, use_hardware
from finflow.stages.results import CollectResult


def collect(config: Config, run_dir: Path | None = None) -> CollectResult:
    """Run `config.episodes` behaviours through train days and write their decisions to `config.out`.

    Raises
    ------
    ConfigError, DataError, StorageError
        One line each, see `finflow.errors`.
    """
    run_dir = check_arguments(config, "collect", run_dir)
    stopwatch, path = Stopwatch(), out_file(config.out)
    with stopwatch.phase("prepare"):
        prepared = fit(config, load_market(config), use_hardware(config.hardware))
    folder = made_folder(config, run_dir)
    with stopwatch.phase("collect"):
        dataset = collected(config, prepared, config.episodes)
    atomic_write(path, dataset_bytes(dataset))
    facts = {"dataset": str(path), "dataset_facts": dataset_facts(config, prepared)}
    record = run_record(config, prepared.market, prepared.dates, None, stopwatch, facts)
    finish_run(folder, config, record, stopwatch, {"transitions": len(dataset), "episodes": config.episodes})
    following = command_for("pretrain", config, {"offline.dataset": str(path)})
    return CollectResult(folder, path, len(dataset), following, prepared.market.calendar.line())
