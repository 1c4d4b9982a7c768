"""Phase 2, from the weights of phase 1 to the checkpoint that validation selects."""

from collections.abc import Mapping
from pathlib import Path

import torch

from finflow.agents.bcell import BCell
from finflow.artifacts.commands import command_for
from finflow.artifacts.names import WEIGHTS
from finflow.artifacts.parents import Parent, find_parent, parent_facts
from finflow.artifacts.policy_file import StoredPolicy, read_policy
from finflow.artifacts.provenance import Stopwatch, write_summary
from finflow.data.market import REGIMES
from finflow.envs.collect import Dataset
from finflow.envs.episodes import (
    bootstrapped,
    bootstrapped_in_regime,
    historical,
    in_regime,
    labels,
    starting_portfolios,
)
from finflow.envs.simulator import Simulator
from finflow.errors import ConfigError
from finflow.nn.networks import Networks, build_networks
from finflow.replay import Replay
from finflow.schema import Config
from finflow.schema.algo import BCell as BCellConfig
from finflow.seeding import numpy_stream, stream_seed, torch_stream
from finflow.stages.offline_data import offline_data
from finflow.stages.prepare import Prepared, prepare, reward_facts, use_hardware
from finflow.stages.results import FinetuneResult
from finflow.stages.run import METRICS, SCALE_STATES, Run, cql_scales, open_run
from finflow.stages.tracked import outcome_of, show_networks
from finflow.stages.validation import Selection, summarise_episode
from finflow.tracking.console import warn
from finflow.training.batches import Batcher
from finflow.training.online import Episode, OnlinePlan, OnlineState, share_out, train_online
from finflow.training.refit import RefitState, refit


def finetune(config: Config, run_dir: Path | None = None) -> FinetuneResult:
    """Phase 2: load phase 1's networks exactly, refit values if the reward changed, fine-tune, keep the best.

    The checkpoint with the best validation objective is kept, the hand-over itself among the candidates.

    Raises
    ------
    ParentError
        If no pretrained weights fit; the line names the field that differs and the command to run.
    ConfigError, DataError, StorageError, DivergedError
        One line each, see `finflow.errors`.
    """
    if not isinstance(config.algo, BCellConfig):
        raise ConfigError(f"algo={config.algo.name}: not an algorithm of finetune; choose one of bcell")
    algo, stopwatch = config.algo, Stopwatch()
    device = use_hardware(config.hardware)
    with stopwatch.phase("prepare"):
        prepared = prepare(config, device)
        parent = _parent(config, prepared)
        policy = None if parent is None else read_policy(parent.tensors, parent.metadata)
        if policy is not None:
            prepared = _as_trained(config, prepared, policy)
    with stopwatch.phase("collect"):  # before the run's folder is made: what is refused leaves nothing behind
        episodes = _episodes(config, algo, prepared)
        dataset = _of_regime(config, prepared, offline_data(config, prepared))
    run = open_run(config, run_dir, prepared, stopwatch)
    run.record(parent)
    torch.manual_seed(stream_seed(config.seed, "dropout"))
    world = prepared.world
    networks = build_networks(prepared.spec, algo.network, config.seed, device)
    agent = BCell(networks, algo, world, torch_stream(config.seed, "finetune/agent", device))
    memory = Replay.of(dataset, device)
    generator = torch_stream(config.seed, "finetune/batches", device)
    if policy is not None:
        networks.load_state_dict(policy.networks, strict=True)
        agent.scales = policy.scales
    plan = _plan(config, algo, episodes, prepared, networks, memory)
    lived = Replay(algo.memory_capacity, prepared.market.n, device)
    simulator = Simulator(prepared.market, prepared.accounting, world.reward)
    state, refitted = OnlineState.start(simulator, lived, plan), RefitState()
    monitor = run.monitor(agent, "episode", conservative=algo.cql.alpha > 0)
    validate, selection = run.validator(networks), Selection(networks, config.evaluation.objective)

    def evaluate_at(episode: int) -> dict[str, float | None]:
        score = validate()
        show_networks(run.tracker, "episode", episode, networks, run.gate(validate))
        if selection.consider(episode, score):
            run.save(selection.weights, agent.scales)
        return score

    def before_cql() -> None:
        if agent.scales is None:
            agent.scales = cql_scales(networks, prepared, memory, config.seed)

    def pause() -> None:
        pass

    if selection.at is None:
        if policy is not None and dict(policy.reward_facts) != reward_facts(config, prepared):
            updates = config.budget.refit_updates
            with stopwatch.phase("refit"):
                refit(agent, memory, world, run.tracker, updates, refitted, pause=pause, generator=generator)
            agent.scales = cql_scales(networks, prepared, memory, config.seed)
        score = evaluate_at(0)
        if policy is not None:
            monitor.handed_over(score)
    behaviour = Batcher(
        world,
        algo.relabel_fraction,
        algo.network.state_noise,
        algo.gamma,
        generator,
        lambda state: agent.act(state, agent.generator),
    )
    with stopwatch.phase("train"):
        last = train_online(
            agent, world, plan, state, memory, behaviour, run.tracker, monitor, evaluate_at,
            summarise_episode, before_cql=before_cql, pause=pause, generator=generator,
        )  # fmt: skip
    return _close(run, parent, agent, selection, last)


def _close(
    run: Run, parent: Parent | None, agent: BCell, selection: Selection, last: Mapping[str, float | None]
) -> FinetuneResult:
    """Write the selected weights, `run.json` and, last, `summary.json`."""
    sha256 = run.save(selection.weights, agent.scales)
    agent.networks.load_state_dict(selection.weights)
    run.keep_validation(agent.networks)
    first, end = selection.scores[0], selection.scores[-1]
    objectives = [score[selection.objective] for score in selection.scores]
    dip = None
    if len(objectives) > 1 and all(value is not None for value in objectives):
        dip = min(float(v or 0.0) for v in objectives[1:]) - float(objectives[0] or 0.0)
    diagnostics, trained = alive(selection.score, first), alive(end, first)
    summary = {
        "stage": "finetune",
        "weights_sha256": sha256,
        "parent_sha256": None if parent is None else parent.sha256,
        "selected_episode": selection.at,
        "objective": selection.objective,
        "selected": dict(selection.score),
        "handover": first,
        "dip": dip,
        "diagnostics": diagnostics,
        "diagnostics_at_end": trained,
        "last": dict(last),
    }
    run.tracker.finish(outcome_of(run.folder, "finetune", summary))
    run.tracker.close()
    run.record(parent, finished=True)
    write_summary(run.folder, summary)
    return FinetuneResult(
        run.folder,
        run.folder / WEIGHTS,
        run.folder / METRICS,
        selected_episode=selection.at or 0,
        dip=dip,
        metrics=dict(selection.score),
        diagnostics=diagnostics,
        diagnostics_at_end=trained,
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


def _parent(config: Config, prepared: Prepared) -> Parent | None:
    if config.init.weights is None:
        return None
    wanted = parent_facts(config, prepared.market.fingerprint, prepared.spec.to_dict(), prepared.dates)
    found = find_parent(config.output_root, config.init.weights, wanted, lambda: command_for("pretrain", config))
    if found.stand_in:
        warn(f"init.weights=latest: none were pretrained with seed={config.seed}; took seed={found.facts['seed']}'s")
    return found


def _as_trained(config: Config, prepared: Prepared, policy: StoredPolicy) -> Prepared:
    """The same market under the scaling and reward scale that the parent was trained with."""
    return prepare(config, prepared.world.device, dates=prepared.dates, scaling=policy.scaling, reward=policy.reward)


def _of_regime(config: Config, prepared: Prepared, dataset: Dataset) -> Dataset:
    """Offline transitions of the days that carry the wanted label: what is trained on is of one regime."""
    if config.market_regime.name == "all":
        return dataset
    wanted = REGIMES.index(config.market_regime.name)
    return dataset.only(labels(prepared.market)[dataset.row] == wanted)


def _episodes(config: Config, algo: BCellConfig, prepared: Prepared) -> list[Episode]:
    """Every episode of the run, drawn beforehand, with the weights held at its start."""
    rng = numpy_stream(config.seed, "finetune/episodes")
    market, train, count = prepared.market, prepared.fold.train, config.budget.episodes
    days, regime = config.env.episode_days, config.market_regime.name
    resampled = round(count * algo.bootstrap_fraction)
    if regime == "all":
        rows = historical(train, days, count - resampled, rng) + bootstrapped(train, days, resampled, rng)
    else:
        rows = in_regime(market, train, regime, days, count - resampled, rng)
        rows += bootstrapped_in_regime(market, train, regime, days, resampled, rng)
    rows = [rows[k] for k in rng.permutation(count)]
    starts = starting_portfolios(market, prepared.priors, rows, rng)
    return [Episode(r, s) for r, s in zip(rows, starts, strict=True)]


def _plan(
    config: Config, algo: BCellConfig, episodes: list[Episode], prepared: Prepared, networks: Networks, memory: Replay
) -> OnlinePlan:
    """What phase 2 lives through; the entropy target starts at the parent's own width, sigma[0] at most."""
    slots = share_out(episodes, config.env.parallel)
    start, end = algo.entropy.sigma
    if config.init.weights is not None:
        start = min(start, _own_sigma(networks, prepared, memory, config.seed))
    return OnlinePlan(
        slots=slots,
        frozen_steps=-(-config.budget.frozen_episodes * config.env.episode_days // len(slots)),
        critic_updates=config.budget.critic_updates,
        sigma=(start, end),
        evaluate_every=config.evaluation.every_episodes,
    )


@torch.no_grad()
def _own_sigma(networks: Networks, prepared: Prepared, memory: Replay, seed: int) -> float:
    """Geometric mean of the pretrained policy's sigma over offline states."""
    world = prepared.world
    logged = memory.sample(SCALE_STATES, torch_stream(seed, "own-sigma", world.device))
    decision = networks.actor(world.observe(logged.row, logged.drifted, logged.drawdown))
    risky = decision.tradable[:, :-1]
    return float(torch.exp(decision.log_sigma[risky].mean()))
