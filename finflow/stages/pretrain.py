"""Phase 1, from configuration to published weights."""

from pathlib import Path

import torch

from finflow.agents.iql import IQL
from finflow.artifacts.commands import command_for
from finflow.artifacts.names import WEIGHTS
from finflow.artifacts.parents import publish_parent
from finflow.artifacts.provenance import Stopwatch, write_summary
from finflow.errors import ConfigError
from finflow.nn.networks import build_networks
from finflow.replay import Replay
from finflow.schema import Config
from finflow.schema.algo import IQL as IQLConfig
from finflow.seeding import stream_seed, torch_stream
from finflow.stages.offline_data import offline_data
from finflow.stages.prepare import prepare, use_hardware
from finflow.stages.results import PretrainResult
from finflow.stages.run import METRICS, cql_scales, open_run
from finflow.stages.tracked import outcome_of, show_networks
from finflow.training.batches import Batcher
from finflow.training.offline import OfflinePlan, OfflineState, train_offline


def pretrain(config: Config, run_dir: Path | None = None) -> PretrainResult:
    """Phase 1: collect offline data on train rows (cached), train IQL on it, publish the weights.

    Raises
    ------
    ConfigError, DataError, StorageError, DivergedError
        One line each, see `finflow.errors`.
    """
    if not isinstance(config.algo, IQLConfig):
        raise ConfigError(f"algo={config.algo.name}: not an algorithm of pretrain; choose one of iql")
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        prepared = prepare(config, use_hardware(config.hardware))
    run = open_run(config, run_dir, prepared, stopwatch)
    run.record(None)
    with stopwatch.phase("collect"):
        dataset = offline_data(config, prepared)
    torch.manual_seed(stream_seed(config.seed, "dropout"))  # torch's dropout knows only the global stream
    world, algo = prepared.world, config.algo
    networks = build_networks(prepared.spec, algo.network, config.seed, world.device)
    agent, memory = IQL(networks, algo), Replay.of(dataset, world.device)
    generator = torch_stream(config.seed, "pretrain/batches", world.device)
    batcher = Batcher(world, algo.relabel_fraction, algo.network.state_noise, algo.gamma, generator)
    validator = run.validator(networks)
    plan = OfflinePlan(
        epochs=config.budget.epochs,
        updates_per_epoch=config.budget.updates_per_epoch or -(-len(dataset) // algo.batch_size),
        evaluate_every=config.evaluation.every_epochs,
    )

    monitor = run.monitor(agent, "epoch", conservative=False)

    def evaluate_at(epoch: int) -> dict[str, float | None]:
        score = validator()
        show_networks(run.tracker, "epoch", epoch, networks, run.gate(validator))
        return score

    def pause() -> None:
        pass

    with stopwatch.phase("train"):
        row = train_offline(
            agent, memory, batcher, run.tracker, monitor, evaluate_at, plan, OfflineState(),
            pause=pause, generator=generator,
        )  # fmt: skip
    scales = cql_scales(networks, prepared, memory, config.seed)
    sha256 = run.save(networks.state_dict(), scales)
    run.keep_validation(networks)
    summary = {"stage": "pretrain", "weights_sha256": sha256, "transitions": len(dataset), "metrics": row}
    summary |= {"advantage_std": scales[0], "atom_std": scales[1]}
    run.tracker.finish(outcome_of(run.folder, "pretrain", summary))
    run.tracker.close()
    run.record(None, finished=True)
    write_summary(run.folder, summary)
    if config.init.publish:
        publish_parent(config.output_root, run.folder / WEIGHTS, sha256, run.facts())
    losses = {name: float(row.get(name) or 0.0) for name in ("v_loss", "q_loss", "policy_loss")}
    following = command_for("finetune", config)
    return PretrainResult(
        run.folder, run.folder / WEIGHTS, run.folder / METRICS, **losses, metrics=row, next_command=following
    )
