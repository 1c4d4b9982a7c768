"""Phase 1, from configuration to published weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finflow.agents.base import rank
from finflow.agents.learner import OfflineLearner, make_learner
from finflow.artifacts.provenance import Stopwatch, publish_parent
from finflow.artifacts.runs import WEIGHTS, check_arguments, command_for
from finflow.io.weights import content_hash
from finflow.nn.networks import build_networks
from finflow.schema import Config
from finflow.schema.sections import DirectConfig, IQLConfig, OfflineAlgorithm, OfflineCritic
from finflow.seeding import stream_seed, torch_stream
from finflow.stages.prepare import compiled, computing_of, fit, load_market, offline_data, use_hardware
from finflow.stages.results import Figures, PretrainResult
from finflow.stages.run import DATASET, MARKET, Run, RunDirectory, Selection, open_run, placed, walkers_of
from finflow.tracking.sink import METRICS
from finflow.training.offline import OfflinePlan, OfflineState, train_offline
from finflow.training.replay_buffer import Batcher, ReplayBuffer
from finflow.training.session import Checkpointer, Stop, stop_when_asked


def pretrain(config: Config, run_dir: Path | None = None) -> PretrainResult:
    """Phase 1: collect offline data on train rows (cached), learn from it, publish the weights.

    Raises
    ------
    ConfigError, DataError, StorageError, LockedError, DivergedError
        One line each, see `finflow.errors`.
    Interrupted
        At SIGINT or SIGTERM, after a checkpoint.
    """
    run_dir = check_arguments(config, "pretrain", run_dir)
    with placed(config, run_dir) as place:
        session = _started(config, place)
        with session.run.stopwatch.phase("updates"), stop_when_asked() as stop:
            session.checkpoint(stop)
            row = train_offline(session.agent, session.plan, session.state, session.draw, session.walkers, session)
            session.keeper.finish("epoch", session.plan.epochs)
        return _finished(session, row)


def _started(config: Config, place: RunDirectory) -> "_Session":
    """The run before its first update: data, networks and agent, in a folder of its own."""
    algo = config.algo
    assert isinstance(algo, OfflineAlgorithm)
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        prepared = fit(config, load_market(config), use_hardware(config.hardware))
    place.same({MARKET: prepared.market.fingerprint})
    with stopwatch.phase("collect"):  # before the run's folder is made: what is refused leaves nothing behind
        dataset = offline_data(config, prepared) if isinstance(algo, OfflineCritic) else None
    hashed = None if dataset is None else content_hash(dataset.arrays())
    made_of = {MARKET: prepared.market.fingerprint, DATASET: hashed}
    place.same(made_of)
    run = open_run(config, place, prepared, stopwatch, None)
    torch.manual_seed(stream_seed(config.seed, "dropout"))  # torch's dropout knows only the global stream
    device = prepared.world.device
    networks = build_networks(prepared.spec, algo.network, config.seed, device, computing_of(config.hardware))
    memory = None if dataset is None else ReplayBuffer.of(dataset, device)
    agent: OfflineLearner = make_learner(
        networks, algo, prepared.world, torch_stream(config.seed, "pretrain/agent", device)
    )
    agent.update = compiled(agent.update, config.hardware)
    return _Session(run, agent, memory, made_of)


class _Session:
    """One run of phase 1: its agent with all that it learns from, validation, checkpoints and figures.

    draw : the next batch of transitions, None for a learner without a critic; walkers : None where no paths are used.
    """

    keeper: Checkpointer

    def __init__(
        self, run: Run, agent: OfflineLearner, memory: ReplayBuffer | None, made_of: Mapping[str, str | None]
    ) -> None:
        self.run, self.agent, self.memory, self.made_of, self.tracker = run, agent, memory, made_of, run.tracker
        config, prepared, algo = run.config, run.prepared, agent.config
        self.generator = torch_stream(config.seed, "pretrain/batches", prepared.world.device)
        self.draw, once = None, 1
        if memory is not None and isinstance(algo, OfflineCritic):
            noise = algo.network.state_noise
            batcher = Batcher(prepared.world, algo.relabel_fraction, noise, algo.gamma, self.generator)
            self.draw = lambda: batcher.complete(memory.sample(algo.batch_size, self.generator))
            once = -(-memory.size // algo.batch_size)
        self.walkers = None
        if isinstance(algo, DirectConfig) or (isinstance(algo, IQLConfig) and algo.extraction == "value_gradient"):
            self.walkers = walkers_of(config, prepared, algo, "pretrain/walkers")
        self.plan = OfflinePlan(
            epochs=config.budget.epochs,
            updates_per_epoch=config.budget.updates_per_epoch or once,
            evaluate_every=config.evaluation.every_epochs,
        )
        self.state, self.validate = OfflineState(), run.validator(agent.networks)
        self.selection = Selection(None, config.evaluation.objective)
        self.monitor = run.monitor(agent, "epoch", conservative=False)

    def checkpoint(self, stop: Stop) -> None:
        """Save from now on, and go on from the checkpoint that was found."""
        parts = {
            "agent": self.agent,
            "state": self.state,
            "monitor": self.monitor,
            "selection": self.selection,
            "generator": self.generator,
        }
        parts |= {} if self.walkers is None else {"walkers": self.walkers}
        self.keeper = self.run.checkpointer(stop, parts, self.made_of, self.monitor.check)

    def evaluate(self, epoch: int) -> Figures:
        """Validate the agent, and mark the checkpoint if it is the best so far."""
        run = self.run
        with run.stopwatch.phase("validation"):
            score = self.validate()
            run.show_networks("epoch", epoch, self.agent.networks, self.validate.gate)
        if self.selection.consider(epoch, score, self.validate.series(run.config.evaluation.objective)):
            self.keeper.found_best()
        return score

    def pause(self) -> None:
        """Save a checkpoint where one is due, and stop where that was asked for."""
        self.keeper.pause("epoch", self.state.updates // self.plan.updates_per_epoch)


def _finished(session: _Session, row: Figures) -> PretrainResult:
    """Write and publish the weights, and end the run; `row` is the last epoch's."""
    run, memory, networks = session.run, session.memory, session.agent.networks
    with run.stopwatch.phase("results"):
        scales = None if memory is None else run.measure_scales(networks, memory)
    found = run.confidence(networks)
    sha256 = run.save(networks.state_dict(), scales, found)
    summary: dict[str, Any] = {"weights_sha256": sha256, "metrics": row}
    if memory is not None and scales is not None:
        summary |= {"transitions": memory.size, "advantage_std": scales.advantage, "atom_std": scales.atoms}
    summary["confidence"] = None if found is None else found.to_dict()
    if run.config.init.publish and memory is not None and rank() == 0:  # phase 2 takes over a critic, too
        publish_parent(run.config.output_root, run.folder / WEIGHTS, sha256, run.facts())
    run.finish(summary)
    losses = {name: float(row.get(name) or 0.0) for name in ("v_loss", "q_loss", "policy_loss")}
    return PretrainResult(
        run.folder,
        run.folder / WEIGHTS,
        run.folder / METRICS,
        **losses,
        figures=row,
        confidence=found,
        next_command=command_for("finetune", run.config),
    )
