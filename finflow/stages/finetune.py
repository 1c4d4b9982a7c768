"""Phase 2, from the weights of phase 1 to the checkpoint that validation selects.

`FinetuneSession` is what its loop needs of the run: hand-over, experience, validation, checkpoints and figures.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from finflow.agents.bcell import hand_over
from finflow.agents.learner import OnlineLearner, make_learner
from finflow.artifacts.checkpoints import read_policy
from finflow.artifacts.provenance import Parent, Stopwatch, weights_of
from finflow.artifacts.runs import WEIGHTS, check_arguments, command_for
from finflow.data.market import REGIMES, Market
from finflow.envs.collect import labels, starting_portfolios, training_paths
from finflow.envs.simulator import Simulator, State
from finflow.errors import ConfigError, ParentError
from finflow.evaluation.result import Floats
from finflow.io.weights import content_hash
from finflow.nn.actor import Decision
from finflow.nn.networks import Networks, build_networks
from finflow.schema import Config
from finflow.schema.sections import OnlineAlgorithm
from finflow.seeding import numpy_stream, stream_seed, torch_stream
from finflow.stages.parents import find_weights
from finflow.stages.prepare import (
    Prepared,
    compiled,
    computing_of,
    fit,
    load_market,
    offline_data,
    reward_facts,
    use_hardware,
)
from finflow.stages.results import FinetuneResult
from finflow.stages.run import (
    DATASET,
    EPISODES,
    MARKET,
    PARENT,
    SCALE_STATES,
    Run,
    RunDirectory,
    Selection,
    open_run,
    placed,
    summarise_episode,
    walkers_of,
)
from finflow.tracking.sink import METRICS, warn
from finflow.training.monitor import Figures
from finflow.training.online import Episode, Experience, OnlinePlan, OnlineState, share_out, train_online
from finflow.training.refit import RefitState, refit
from finflow.training.replay_buffer import Batcher, ReplayBuffer
from finflow.training.session import Checkpointer, Stop, stop_when_asked


class FinetuneSession:
    """One run of phase 2, from its hand-over on.

    memory : offline data; made_of : hashes of what the run is made of, by name, for its checkpoints.
    refit_updates : of the values at the hand-over; None where the reward is the parent's.
    """

    keeper: Checkpointer

    def __init__(
        self,
        run: Run,
        agent: OnlineLearner,
        memory: ReplayBuffer,
        plan: OnlinePlan,
        refit_updates: int | None,
        made_of: Mapping[str, Any],
    ) -> None:
        self.run, self.agent, self.memory, self.plan, self.tracker = run, agent, memory, plan, run.tracker
        self.refit_updates, self.made_of = refit_updates, made_of
        config, prepared, networks = run.config, run.prepared, agent.networks
        device = prepared.world.device
        simulator = Simulator(prepared.market, prepared.accounting, prepared.world.reward)
        lived = ReplayBuffer(agent.config.buffer_size, prepared.market.n, device)
        self.state, self.refitted = OnlineState.start(simulator, lived, plan), RefitState()
        self.selection = Selection(networks, config.evaluation.objective)
        self.generator = torch_stream(config.seed, "finetune/batches", device)
        self.validate = run.validator(networks)
        algo = agent.config
        noise = algo.network.state_noise
        batcher = Batcher(prepared.world, algo.relabel_fraction, noise, algo.gamma, self.generator, self.act)
        walkers = walkers_of(config, prepared, algo, "finetune/walkers") if algo.horizon else None
        self.experience = Experience(memory, batcher, walkers)
        self.monitor = run.monitor(agent, "episode", conservative=bool(algo.cql and algo.cql.alpha))

    def act(self, observed: State) -> Decision:
        """One draw of the policy as it stands, with which samples are relabelled."""
        return self.agent.act(observed, self.agent.acting)

    def checkpoint(self, stop: Stop) -> None:
        """Save from now on, and go on from the checkpoint that was found."""
        parts = {
            "agent": self.agent,
            "state": self.state,
            "refit": self.refitted,
            "monitor": self.monitor,
            "selection": self.selection,
            "generator": self.generator,
        }
        walkers = self.experience.walkers
        parts |= {} if walkers is None else {"walkers": walkers}
        self.keeper = self.run.checkpointer(stop, parts, self.made_of, self.monitor.check)

    def hand_over(self) -> None:
        """Fit the values to a changed reward; then the hand-over is the first candidate, and the first checkpoint."""
        run, keeper, refitted = self.run, self.keeper, self.refitted
        if self.refit_updates is not None:
            with run.stopwatch.phase("refit"):
                refit(
                    self.agent, self.memory, run.prepared.world, run.tracker, self.refit_updates, refitted,
                    pause=lambda: keeper.pause("refit", refitted.updates, regular=False), generator=self.generator,
                )  # fmt: skip
            self.measure_scales()
            self.agent.hand_over()
        score = self.evaluate(0)
        if self.run.config.init.weights is not None:
            self.monitor.handed_over(score)
        keeper.save("episode", 0)

    def pause(self) -> None:
        """Save a checkpoint where one is due, and stop where that was asked for."""
        self.keeper.pause("episode", self.state.finished)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the seconds of a named phase of the run."""
        return self.run.stopwatch.phase(name)

    def summarise(self, net: Floats, turnover: Floats) -> Figures:
        """Figures of an episode, annualised by the market's calendar."""
        return summarise_episode(net, turnover, year=self.run.prepared.market.calendar.year)

    def evaluate(self, episode: int) -> dict[str, float | None]:
        """Validate the agent, and keep it if it is the best so far."""
        run = self.run
        with run.stopwatch.phase("validation"):
            score = self.validate()
            run.show_networks("episode", episode, self.agent.networks, self.validate.gate)
            if self.selection.consider(episode, score, self.validate.series(run.config.evaluation.objective)):
                run.save(self.selection.weights, self.agent.scales)
                self.keeper.found_best()
        return score

    def before_cql(self) -> None:
        """Measure the scale of CQL where no parent brought one."""
        if self.agent.scales is None:
            self.measure_scales()

    def measure_scales(self) -> None:
        """The scale of CQL, on the critic as it stands."""
        self.agent.scales = self.run.measure_scales(self.agent.networks, self.memory)


def finetune(config: Config, run_dir: Path | None = None) -> FinetuneResult:
    """Phase 2: load phase 1's networks exactly, refit values if the reward changed, fine-tune, keep the best.

    The checkpoint with the best validation objective is kept, the hand-over itself among the candidates.

    Raises
    ------
    ParentError
        If no pretrained weights fit; the line names the field that differs and the command to run.
    ConfigError, DataError, StorageError, LockedError, DivergedError
        One line each, see `finflow.errors`.
    Interrupted
        At SIGINT or SIGTERM, after a checkpoint.
    """
    run_dir = check_arguments(config, "finetune", run_dir)
    with placed(config, run_dir) as place:
        session, parent = _started(config, place)
        run, agent = session.run, session.agent
        with stop_when_asked() as stop:
            session.checkpoint(stop)
            if session.selection.at is None:
                session.hand_over()
            with run.stopwatch.phase("updates"):
                last = train_online(agent, session.plan, session.state, session.experience, session)
            session.keeper.finish("episode", session.state.finished)
        return _finished(run, parent, agent, session.selection, last)


def _started(config: Config, place: RunDirectory) -> tuple[FinetuneSession, Parent | None]:
    """The run before its hand-over, in a folder of its own, and the weights that it starts from."""
    algo = config.algo
    assert isinstance(algo, OnlineAlgorithm)
    stopwatch, device = Stopwatch(), use_hardware(config.hardware)
    with stopwatch.phase("prepare"):
        market = load_market(config)
        parent = _parent(config, market, place)
        policy = None if parent is None else read_policy(parent.tensors, parent.metadata)
        if policy is None:
            prepared = fit(config, market, device)
        else:
            prepared = fit(config, market, device, scaling=policy.scaling, reward=policy.reward)
    with stopwatch.phase("collect"):  # before the run's folder is made: what is refused leaves nothing behind
        counts = _counts(config, place)
        episodes = [episode for k in range(len(counts)) for episode in _episodes(config, algo, prepared, counts, k)]
        dataset = offline_data(config, prepared)
        if config.market_regime.name != "all":
            wanted = REGIMES.index(config.market_regime.name)
            dataset = dataset.only(labels(prepared.market)[dataset.row] == wanted)
    made_of = {
        MARKET: prepared.market.fingerprint,
        DATASET: content_hash(dataset.arrays()),
        PARENT: None if parent is None else parent.sha256,
    }
    place.same(made_of)
    run = open_run(config, place, prepared, stopwatch, parent)
    torch.manual_seed(stream_seed(config.seed, "dropout"))
    networks = build_networks(prepared.spec, algo.network, config.seed, device, computing_of(config.hardware))
    agent: OnlineLearner = make_learner(
        networks, algo, prepared.world, torch_stream(config.seed, "finetune/agent", device)
    )
    agent.update = compiled(agent.update, config.hardware)
    memory = ReplayBuffer.of(dataset, device)
    if policy is not None:
        lost = hand_over(policy.build(device), networks)
        if lost is not None and place.found is None:
            run.tracker.alert("episode", 0, lost)
        agent.scales = policy.scales
        agent.hand_over()
    slots = share_out(episodes, min(config.env.num_envs, counts[0]))
    plan = _plan(config, algo, slots, prepared, networks, memory)
    changed = policy is not None and dict(policy.reward_facts) != reward_facts(config, prepared)
    refits = config.budget.refit_updates if changed else None
    return FinetuneSession(run, agent, memory, plan, refits, made_of | {EPISODES: counts}), parent


def _finished(
    run: Run, parent: Parent | None, agent: OnlineLearner, selection: Selection, last: Mapping[str, float | None]
) -> FinetuneResult:
    """Write the selected weights, `run.json` and, last, `summary.json`; `last` is the last episode's row."""
    agent.networks.load_state_dict(selection.weights)
    found = run.confidence(agent.networks)
    sha256 = run.save(selection.weights, agent.scales, found)
    first, end = selection.scores[0], selection.scores[-1]
    known = [value for score in selection.scores if (value := score[selection.objective]) is not None]
    dip = min(known[1:]) - known[0] if len(known) == len(selection.scores) > 1 else None
    diagnostics, trained = alive(selection.score, first), alive(end, first)
    summary = {
        "weights_sha256": sha256,
        "parent_sha256": None if parent is None else parent.sha256,
        "selected_episode": selection.at,
        "objective": selection.objective,
        "confidence": None if found is None else found.to_dict(),
        "selected": dict(selection.score),
        "handover": first,
        "dip": dip,
        "diagnostics": diagnostics,
        "diagnostics_at_end": trained,
        "last": dict(last),
    }
    run.finish(summary)
    return FinetuneResult(
        run.folder,
        run.folder / WEIGHTS,
        run.folder / METRICS,
        selected_episode=selection.at or 0,
        dip=dip,
        figures=dict(selection.score),
        diagnostics=diagnostics,
        diagnostics_at_end=trained,
        confidence=found,
        next_command=command_for("evaluate", run.config, {"run": run.folder}),
    )


def alive(score: Mapping[str, float | None], handover: Mapping[str, float | None]) -> dict[str, float]:
    """Gate entropy (nats) and mean distance of the experts' portfolios, and how they changed since the hand-over.

    Both on validation days, holding 1/N.
    """
    found: dict[str, float] = {}
    for name in ("gate_entropy", "expert_distance"):
        now, then = (float(s[f"validation_{name}"] or 0.0) for s in (score, handover))
        found |= {name: now, f"{name}_change": now - then}
    return found


def _parent(config: Config, market: Market, place: RunDirectory) -> Parent | None:
    """Weights that the run starts from; a resumed run takes those that it began with."""
    if config.init.weights is None:
        return None
    recorded = place.record.get("parent")
    weights = str(weights_of(recorded, config.output_root)) if recorded else config.init.weights
    found = find_weights(config, market, weights)
    if recorded and found.sha256 != recorded["sha256"]:
        raise ParentError(f"{weights}: no longer the weights that {place.folder} began with; restore them")
    if found.stand_in:
        warn(f"init.weights=latest: none were pretrained with seed={config.seed}; took seed={found.facts['seed']}'s")
    return found


def _counts(config: Config, place: RunDirectory) -> list[int]:
    """Episodes drawn when the run began, and with each resumption that asked for more."""
    drawn = list[int]() if place.found is None else [int(count) for count in place.found.facts["made_of"][EPISODES]]
    more = config.budget.episodes - sum(drawn)
    if more < 0:
        raise ConfigError(f"budget.episodes={config.budget.episodes}: {place.folder} already asked for {sum(drawn)}")
    return [*drawn, more] if more else drawn


def _episodes(config: Config, algo: OnlineAlgorithm, prepared: Prepared, counts: list[int], part: int) -> list[Episode]:
    """Episodes of one part of `counts`, drawn beforehand, with the weights held at the start of each."""
    rng = numpy_stream(config.seed, f"finetune/episodes/{sum(counts[:part])}" if part else "finetune/episodes")
    market, train, count = prepared.market, prepared.fold.train, counts[part]
    days, regime = market.calendar.rows(config.env.episode_days), config.market_regime.name
    resampled = round(count * algo.bootstrap_fraction)
    rows = training_paths(market, train, regime, days, count, resampled, rng)
    starts = starting_portfolios(market, prepared.priors, rows, rng)
    return [Episode(r, s) for r, s in zip(rows, starts, strict=True)]


def _plan(
    config: Config,
    algo: OnlineAlgorithm,
    slots: list[list[Episode]],
    prepared: Prepared,
    networks: Networks,
    memory: ReplayBuffer,
) -> OnlinePlan:
    """The plan of phase 2; the entropy target starts at the pretrained policy's own width, sigma[0] at most."""
    start, end = algo.entropy.target_sigma
    days = prepared.market.calendar.rows(config.env.episode_days)
    if config.init.weights is not None:
        start = min(start, _own_sigma(networks, prepared, memory, config.seed))
    return OnlinePlan(
        slots=slots,
        frozen_steps=-(-config.budget.warmup_episodes * days // len(slots)),
        critic_warmup_updates=config.budget.critic_warmup_updates,
        sigma=(start, end),
        evaluate_every=config.evaluation.every_episodes,
    )


@torch.no_grad()
def _own_sigma(networks: Networks, prepared: Prepared, memory: ReplayBuffer, seed: int) -> float:
    """Geometric mean of the pretrained policy's sigma over offline states."""
    world = prepared.world
    logged = memory.sample(SCALE_STATES, torch_stream(seed, "own-sigma", world.device))
    decision = networks.actor(world.observe(logged.row, logged.drifted, logged.drawdown))
    risky = decision.tradable[:, :-1]
    return float(torch.exp(decision.log_sigma[risky].mean()))
