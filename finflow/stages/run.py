"""A training run of either phase: its folder, data, clock and sinks, what these are told, and its validation.

The folder is new or that of an interrupted run; it is locked and checked before anything else. Validation is the greedy
policy's backtest on validation rows; it chooses the checkpoint that is kept.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finflow.agents.base import Checkpointable, Scales, Stateful, measure_scales
from finflow.agents.learner import GreedyPolicy, Learner, describe
from finflow.artifacts.checkpoints import FOLDER, Checkpoints, Found, to_metadata, to_tensors
from finflow.artifacts.provenance import (
    CONFIG,
    FACTS,
    RUN,
    SUMMARY,
    Parent,
    Stopwatch,
    finish_run,
    parent_facts,
    run_record,
    write_config,
)
from finflow.artifacts.runs import VALIDATION, WEIGHTS, run_files, state_of, stored_config, under
from finflow.config.compose import from_yaml, run_folder
from finflow.data.market import TRADING_YEAR
from finflow.data.prices import faded_warnings
from finflow.envs.collect import Rows, training_paths
from finflow.errors import ConfigError, DataError, Interrupted, StorageError
from finflow.evaluation.backtest import Task, equal_weight_plan, equal_weight_track, lagged
from finflow.evaluation.metrics import (
    OBJECTIVES,
    Confidence,
    cvar,
    decision_regimes,
    gate_information,
    paired_gain,
    sharpe_ratio,
    validation_score,
)
from finflow.evaluation.result import Track
from finflow.io.files import (
    atomic_csv,
    atomic_json,
    flatten,
    locked,
    read_json,
    read_lines,
    remove_leftovers,
    storage_errors,
)
from finflow.io.weights import save_weights
from finflow.nn.networks import Networks
from finflow.schema import GROWS, READS, Config, role_of
from finflow.schema.fields import Role
from finflow.schema.sections import OnlineAlgorithm, ValueGradients
from finflow.seeding import torch_stream
from finflow.stages.crossfit import confidence
from finflow.stages.prepare import PAST, Prepared, past_facts, reward_facts
from finflow.sweeps.folder import SweepFolder
from finflow.tracking.sink import METRICS, Mark, Position, RunOutcome, Start, differs, warn
from finflow.tracking.tracker import CompositeTracker, make_tracker
from finflow.training.monitor import Monitor
from finflow.training.replay_buffer import ReplayBuffer, Walkers
from finflow.training.session import Checkpointer, Stop

_FREE = {Role.OUTPUT, Role.SAVING, Role.TRACKING, Role.HOST, Role.SPEED}
"""What may change when a run is resumed: none of it changes more than the last bits of a result."""


@dataclass
class RunDirectory:
    """Folder of a run.

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
        """Make and lock the empty folder of a new run; remove `summary.json`, which says "done", of a resumed one."""
        if self.resumed:
            with storage_errors(self.folder / SUMMARY, "removed"):
                (self.folder / SUMMARY).unlink(missing_ok=True)
            return
        self.held.enter_context(locked(self.folder))
        remove_leftovers(self.folder)
        if any(not path.name.startswith(".") and path.suffix != ".log" for path in self.folder.iterdir()):  # Hydra's
            raise ConfigError(f"{self.folder}: not empty; name a new folder, or write resume=true if a run was cut off")

    def same(self, made_of: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of a run that was made of something else; `made_of` has hashes by what they are of."""
        kept = {} if self.found is None else self.found.facts["made_of"]
        changed = [name for name, value in made_of.items() if name in kept and kept[name] != value]
        if changed:
            what = " and ".join(changed)
            raise DataError(f"{self.folder}: its {what} changed since it began; restore it, or start a new run")


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
        if stored.stage != config.stage:
            raise ConfigError(f"resume: {folder} is a run of {stored.stage}, not of {config.stage}; name another")
        changed = _changes(stored, config)
        refused = _refused(config.stage, changed)
        if refused:
            had = ", ".join(f"{key}={then} (here {now})" for key, (then, now) in refused.items())
            raise ConfigError(f"resume: {folder} has {had}; give the same, or start a new run without resume")
        place = RunDirectory(folder, store, held, resumed=True, changed=changed)
        place.record = read_json(folder / RUN) if (folder / RUN).exists() else {}
        place.found = _found(config, store)
        if state_of(folder) == "finished":
            if config.stage == "pretrain":  # others may have started from its weights, which would change under them
                raise ConfigError(f"{folder}: finished, and its weights published; start a new run without resume")
            if place.found is None or GROWS[config.stage] not in changed:
                raise ConfigError(f"{folder}: finished; for more, raise {GROWS[config.stage]}, else leave out resume")
        threads = place.record.get("threads", config.hardware.threads)
        if threads != config.hardware.threads:
            warn(f"hardware.threads={config.hardware.threads}: the run began with {threads}; the bits may differ")
        yield place


def resumed_folder(config: Config, run_dir: Path | None) -> Path | None:
    """Folder of the run that `config.resume` asks for, or None for a new run; `ConfigError` if there is none.

    `run_dir`, asked for besides, may not exist yet, where a run was killed before it made one.
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
    paths = run_files(Path(config.output_root), config.stage, CONFIG)
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, str(path)), reverse=True):
        with contextlib.suppress(ConfigError):  # of another version, or damaged: it can be named, not found
            unfinished = state_of(path.parent) == "unfinished"
            if unfinished and not _refused(config.stage, _changes(from_yaml(path), config)):
                return path.parent
    place = Path(config.output_root) / config.stage
    raise ConfigError(
        f"resume=true: no unfinished run of these settings under {place}; name the folder of one, or leave out resume"
    )


def _found(config: Config, store: Checkpoints) -> Found | None:
    if isinstance(config.resume, str) and _holder(Path(config.resume)):
        found = store.named(Path(config.resume))
        reason = differs(store.run_dir, _position(found.facts))
        if reason is not None:
            raise StorageError(f"{reason}; restore it, or start a new run")
        return found
    found = store.newest(lambda facts: differs(store.run_dir, _position(facts)))
    if found is not None and found.refused:
        warn(f"{found.refused[0]}; going on from {found.path}")
    return found


def _holder(path: Path) -> Path | None:
    """Run folder that a file among a run's checkpoints belongs to; None for any other path."""
    whole = path if path.parent.name else path.absolute()  # the name of a file in the current folder
    return whole.parent.parent if whole.parent.name == FOLDER and not path.is_dir() else None


def _position(facts: Mapping[str, Any]) -> Position:
    return {name: Mark(length, sha256) for name, (length, sha256) in facts["sinks"].items()}


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


class Validator:
    """Scores a policy on the fold's validation rows; never sees the test rows.

    Attributes
    ----------
    gate : [N, K] shares that the gate gave the experts on validation days, at the last validation.
    latest : track of the policy when it was last scored.
    """

    latest: Track

    def __init__(self, policy: GreedyPolicy, task: Task) -> None:
        self.policy, self.task = policy, task
        market, fold = task.market, task.fold
        self.benchmark = equal_weight_track(market, fold.validation, task.accounting)
        rows = np.asarray(fold.validation.decisions, dtype=np.int64)
        self._regime = decision_regimes(market, fold.validation)
        self.gate = np.empty((0, 0))
        self._states = (rows, equal_weight_plan(market).targets[rows], np.zeros(len(rows)))

    def __call__(self) -> dict[str, float | None]:
        """Figures of the policy as it stands, and how alive gate and experts are; each `validation_...`."""
        self.latest = self.track()
        score = self.diagnose() | validation_score(self.latest, self.benchmark)
        return {f"validation_{name}": value for name, value in score.items()}

    def series(self, objective: str) -> NDArray[np.float64]:
        """Daily series of the latest track whose ratio mean / std `objective` is, [R]."""
        return self.latest.net - self.benchmark.net if objective == "active_ir" else self.latest.net

    def track(self, *, late: bool = False) -> Track:
        """The policy as it stands over the validation rows; each trade one close late if asked."""
        act = lagged(self.policy.act) if late else self.policy.act
        return self.task.track(self.task.fold.validation, act)

    def diagnose(self) -> dict[str, float | None]:
        """`agents.learner.describe` over the validation rows, holding 1/N, and what gate and regime share, in nats."""
        decision = self.policy.decide(*self._states)
        self.gate = decision.gate.double().cpu().numpy()
        shared = gate_information(self.gate, self._regime)
        return {**describe(decision), "gate_regime_information": shared}


class Selection(Stateful):
    """Keeps the latest weights whose ratio is a standard error above the first's, paired by day; else the first.

    The best of many validations would be the luckiest one. Every candidate is therefore compared with the first, the
    weights at the hand-over, which stay unless a candidate is clearly better.

    networks : whose weights are kept; None keeps the scores alone.
    at : step of the weights kept, None before the first score; `score` and `weights` are their own.
    scores : every score considered, in order.
    """

    STATE = ("at", "score", "scores", "weights", "first")

    def __init__(self, networks: Networks | None, objective: str) -> None:
        self.networks, self.objective = networks, OBJECTIVES[objective]
        self.at: int | None = None
        self.score: Mapping[str, float | None] = {}
        self.scores: list[dict[str, float | None]] = []
        self.weights: dict[str, Tensor] = {}
        self.first: NDArray[np.float64] | None = None

    def consider(self, step: int, score: Mapping[str, float | None], series: NDArray[np.float64]) -> bool:
        """Keep the weights if they are the first, or clearly better; returns whether. `series` [R]: see `Validator`."""
        self.scores.append(dict(score))
        if self.first is None:
            self.first = series
        elif paired_gain(series, self.first) < 1.0:
            return False
        self.at, self.score = step, dict(score)
        if self.networks is not None:
            self.weights = {name: tensor.detach().clone() for name, tensor in self.networks.state_dict().items()}
        return True


def summarise_episode(
    net: NDArray[np.float64], turnover: NDArray[np.float64], year: int = TRADING_YEAR
) -> dict[str, float | None]:
    """Return, Sharpe ratio, CVaR95 and turnover of one episode from its net returns and turnover [L]."""
    return {
        "days": float(len(net)),
        "return": float(np.prod(1.0 + net) - 1.0),
        "sharpe": sharpe_ratio(net, year),
        "cvar": cvar(net, 0.05),
        "turnover": float(turnover.sum()),
    }


SCALE_STATES = 1024  # states on which the scale of CQL is measured
HURRY = 4.0
"""Seconds that the sinks of an interrupted run have together: who sent the signal may soon send SIGKILL."""
_UNTOLD = {Role.OUTPUT, Role.TRACKING}
"""Roles of the keys that sinks are not told: they shape no result."""
MARKET, DATASET, PARENT, EPISODES = "market", "offline data", "parent", "episodes"
"""Names of what a run is made of; a checkpoint keeps their hashes."""


@dataclass(frozen=True)
class Run:
    """One training run: its folder, data, clock and sinks, and what its `run.json` has said since its start."""

    config: Config
    place: RunDirectory
    prepared: Prepared
    stopwatch: Stopwatch
    tracker: CompositeTracker
    record: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where everything of this run is written."""
        return self.place.folder

    def facts(self) -> dict[str, Any]:
        """Facts that identify the weights of this run."""
        prepared = self.prepared
        return parent_facts(self.config, prepared.market.fingerprint, prepared.spec.to_dict(), prepared.dates)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pass summary, weights and the report's curves to the sinks, close these, and write the last files."""

        def curves() -> dict[str, Any]:
            from finflow.report.learning_curves import training_charts

            rows, step = read_lines(self.folder / METRICS), "epoch" if self.config.stage == "pretrain" else "episode"
            return {f"curves/{chart.key}": chart.figure for chart in training_charts(rows, step)}

        whole = {"stage": self.config.stage, **summary}
        self.tracker.finish(RunOutcome(whole, {"weights": self.folder / WEIGHTS}, figures=curves))
        self.tracker.close()
        finish_run(self.folder, self.config, self.record, self.stopwatch, summary)

    def checkpointer(
        self,
        stop: Stop,
        parts: Mapping[str, Checkpointable | torch.Generator],
        made_of: Mapping[str, Any],
        check: Callable[[], None],
    ) -> Checkpointer:
        """The checkpointer, which has restored the checkpoint that was found; `made_of`: see `RunDirectory.same`."""

        def facts() -> dict[str, Any]:
            return {"sinks": self.tracker.position(), "made_of": dict(made_of)}

        phase = self.stopwatch.phase
        keeper = Checkpointer(self.place.store, self.config.checkpoint, stop, parts, facts, check, phase)
        if self.place.found is not None:
            keeper.restore(self.place.found)
            self.place.found = replace(self.place.found, state=None)  # not held twice from here on
        return keeper

    def validator(self, networks: Networks) -> Validator:
        """Validation of the greedy policy of `networks`."""
        return Validator(GreedyPolicy(networks.actor, self.prepared.world, self.prepared.fold.entries), self.prepared)

    def show_networks(self, step_name: str, step: int, networks: Networks, gate: NDArray[np.float64]) -> None:
        """Histograms of the weights of every part of actor and critic, and of `gate` [N, K], see `Validator`."""
        if not self.tracker.listening:
            return
        for whole, network in (("actor", networks.actor), ("critic", networks.critic)):
            for part, weights in _weights(network).items():
                self.tracker.histogram(step_name, step, f"weights/{whole}.{part}", weights)
        for expert, share in zip(self.prepared.spec.experts, gate.T, strict=True):
            self.tracker.histogram(step_name, step, f"gate/{expert}", share)

    def monitor(self, agent: Learner, step_name: str, *, conservative: bool) -> Monitor:
        """Stability monitor of the run's training loop, which counts `step_name`s."""
        return Monitor(
            self.config.monitor, agent, self.tracker, step_name=step_name, names=self.prepared.market.n - 1,
            conservative=conservative,
        )  # fmt: skip

    def measure_scales(self, networks: Networks, memory: ReplayBuffer) -> Scales:
        """The scale of CQL, on the critic as it stands, over offline states."""
        world = self.prepared.world
        generator = torch_stream(self.config.seed, "cql-scale", world.device)
        logged = memory.sample(SCALE_STATES, generator)
        state = world.observe(logged.row, logged.drifted, logged.drawdown)
        return measure_scales(networks, world, state, generator)

    def confidence(self, networks: Networks) -> Confidence | None:
        """The part of its tilt that the policy of `networks` is deployed with.

        What it earns on validation days, at its whole tilt, is written to `validation.csv`: a sweep compares its jobs.
        """
        with self.stopwatch.phase("results"):
            validator = self.validator(networks)
            track = validator.track()
            columns = (track.dates, track.net.tolist(), validator.benchmark.net.tolist())
            atomic_csv(self.folder / VALIDATION, [("date", "policy", "benchmark"), *zip(*columns, strict=True)])
        with self.stopwatch.phase("confidence"):
            if self.config.confidence == "none":
                return None
            # Compared with e at the policy's own rate: trading 1/N more slowly than daily is a gain that no tilt earns.
            # A signal that fades within two closes is no one's to trade at the first: closes may be of other hours.
            late = bool(faded_warnings(self.prepared.market, self.prepared.fold.train))
            tilted = validator.track(late=late) if late else track
            networks.actor.confidence = 0.0
            held = validator.track(late=late)
            networks.actor.confidence = 1.0
            return confidence(self.config, self.prepared, tilted.net - held.net, late=late)

    def save(self, weights: Mapping[str, Tensor], scales: Scales | None, confidence: Confidence | None = None) -> str:
        """Write `weights.safetensors` with all that belongs to it; returns its SHA-256."""
        prepared = self.prepared
        facts, known = reward_facts(self.config, prepared), None if confidence is None else confidence.to_dict()
        metadata = to_metadata(prepared.spec, self.config.algo.network, facts, scales, known) | {FACTS: self.facts()}
        return save_weights(self.folder / WEIGHTS, to_tensors(weights, prepared.scaling), metadata)


def open_run(
    config: Config, place: RunDirectory, prepared: Prepared, stopwatch: Stopwatch, parent: Parent | None
) -> Run:
    """Claim the run folder, write `config.yaml` and `run.json`, and open the sinks where a checkpoint left them."""
    place.claim()
    write_config(place.folder, config)
    found = place.found
    since = None if found is None else _position(found.facts)  # where the sinks' files ended at the checkpoint
    tracker = make_tracker(config.tracking, place.folder, since, None if found is None else found.facts["progress"])

    def close(kind: type[BaseException] | None, *_: object) -> None:  # a run that ends well has closed it before
        hurried = kind is not None and issubclass(kind, Interrupted)
        tracker.close(failed=True, within=HURRY if hurried else None)

    place.held.push(close)
    facts: dict[str, Any] = {PAST: past_facts(prepared.market, prepared.cache)}
    if place.resumed:
        again = {"from": None if found is None else found.path.name, "changed": place.changed}
        facts["resumed"] = [*place.record.get("resumed", []), again]
    origin = None if parent is None else parent.record(config.output_root)
    record = run_record(config, prepared.market, prepared.dates, origin, stopwatch, facts)
    atomic_json(place.folder / RUN, record)
    tracker.begin(start_of(config, place.folder, record))
    return Run(config, place, prepared, stopwatch, tracker, record)


def walkers_of(config: Config, prepared: Prepared, algo: ValueGradients, stream: str) -> Walkers:
    """Walkers through the fold's train rows, of the regime asked for; H is cut to an episode's length."""
    market, train = prepared.market, prepared.fold.train
    share = algo.bootstrap_fraction if isinstance(algo, OnlineAlgorithm) else config.offline.bootstrap_fraction
    regime = config.market_regime.name if isinstance(algo, OnlineAlgorithm) else "all"
    days = market.calendar.rows(config.env.episode_days)
    horizon = min(algo.horizon, days)

    def draw(_actor: int, count: int, rng: np.random.Generator) -> list[Rows]:
        resampled = int(rng.binomial(count, share))
        return training_paths(market, train, regime, days, count, resampled, rng, horizon)

    return Walkers(
        market, prepared.world, draw, actors=config.algo.network.actors, walkers=algo.walkers, horizon=horizon,
        seed=config.seed, stream=stream,
    )  # fmt: skip


def start_of(config: Config, folder: Path, record: Mapping[str, Any]) -> Start:
    """How a run begins: the sections of its configuration that its stage reads, and its `run.json`."""
    read = {key.split(".")[0] for key in READS[config.stage] if role_of(key) not in _UNTOLD} - {"stage"}
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key in read}
    sweep = SweepFolder(folder.resolve().parent)
    if not sweep.exists:
        return Start(config.stage, config.name, settings, record)
    own = (job.values for job in sweep.manifest().jobs if job.name == folder.resolve().name)
    return Start(config.stage, config.name, settings, record, sweep.path.name, next(own, {}))


def _weights(network: nn.Module) -> dict[str, NDArray[np.float64]]:
    """Weights of each part, flattened; a part is what the network calls by a name of its own."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for name, weight in network.named_parameters():
        found.setdefault(name.split(".")[0], []).append(weight.detach().double().cpu().numpy().ravel())
    return {part: np.concatenate(weights) for part, weights in found.items()}
