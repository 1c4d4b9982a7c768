"""Cross-fitting: for each block of train days, the return of a policy that was trained on the other days."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finflow.agents.base import OfflineCoefficients, own_rows
from finflow.agents.direct import Direct
from finflow.data.market import BLOCKS, Market, Window
from finflow.envs.collect import Rows, long_stretches, padded, training_paths
from finflow.envs.simulator import Simulator
from finflow.evaluation.backtest import lagged
from finflow.evaluation.metrics import Confidence, confidence_of
from finflow.evaluation.result import Floats
from finflow.io.weights import cached_arrays
from finflow.nn.actor import Actor
from finflow.nn.networks import build_networks
from finflow.schema import Config
from finflow.schema.fields import digest
from finflow.schema.sections import DirectConfig, IQLConfig, OnlineAlgorithm
from finflow.seeding import torch_stream
from finflow.stages.prepare import Prepared, computing_of, reward_facts
from finflow.tracking.tracker import progress
from finflow.training.replay_buffer import Walkers
from finflow.training.session import cosine

PURGE = 21  # trading days left out on both sides of a block, beside the horizon: what features share with it
VERSION = 3
"""Raise it whenever cross-fitting changes; both phases share its result if their settings are the same."""


def confidence(config: Config, prepared: Prepared, validation: Floats, *, late: bool = False) -> Confidence:
    """The part of its tilt that a policy is deployed with.

    Train days are cross-fitted where the policy learns by value gradients; a policy that learns in another way, or a
    history too short for blocks, is judged by its validation days alone.

    Parameters
    ----------
    validation : [R] the policy's own net return on validation days over that of holding e at its own trading rate.
    late : whether every trade is executed one close late, as those of `validation` were.
    """
    calendar = prepared.market.calendar
    blocks = {"validation": validation}
    settings = crossfit_settings(config)
    if config.confidence == "crossfit" and settings is not None:
        # As along training paths: an episode of another calendar may have fewer rows than the horizon.
        days = calendar.rows(config.env.episode_days)
        settings = settings.model_copy(update={"horizon": min(settings.horizon, days)})
        windows = blocks_of(prepared.market, prepared.fold.train, settings.horizon, _regime(config))
        if windows:
            facts = {
                "version": VERSION,
                "data": prepared.market.fingerprint,
                "train": list(prepared.dates["train"]),
                "settings": settings.model_dump(),
                "world": reward_facts(config, prepared),
                "days": config.env.episode_days,
                "regime": _regime(config),
                "updates": config.budget.crossfit_updates,
                "seed": config.seed,
                "late": late,
            }
            made = cached_arrays(
                prepared.cache,
                f"crossfit-{digest(facts)}",
                lambda: crossfit(config, prepared, settings, windows, late=late),
            )
            return confidence_of("crossfit", made | blocks, calendar.year, late=late)
    return confidence_of("validation", blocks, calendar.year, late=late)


def crossfit_settings(config: Config) -> DirectConfig | None:
    """Settings of the actors that are cross-fitted, one per block; None where a run has no value gradients."""
    algo = config.algo
    if isinstance(algo, DirectConfig) or (isinstance(algo, IQLConfig) and algo.extraction == "value_gradient"):
        anchor = algo.prior_kl_coef
    elif isinstance(algo, OnlineAlgorithm) and algo.horizon:
        anchor = algo.prior_kl_coef[1]
    else:
        return None
    return DirectConfig(
        name="direct", lr=algo.lr, actor_lr=algo.actor_lr, grad_clip=algo.grad_clip, gamma=algo.gamma, actors=BLOCKS,
        horizon=algo.horizon, walkers=algo.walkers, prior_kl_coef=anchor,
        network=algo.network.model_copy(update={"actors": BLOCKS}),
    )  # fmt: skip


def blocks_of(market: Market, train: Window, horizon: int, regime: str) -> list[Window]:
    """Blocks of equal length that make up the train window; none where less than a year is left beside one."""
    edges = np.linspace(train.start, train.stop, BLOCKS + 1).astype(int).tolist()
    blocks = [Window(first, last) for first, last in pairwise(edges)]
    left = [sum(len(part) for part in others(market, train, block, horizon, regime)) for block in blocks]
    return blocks if min(left) >= market.calendar.year else []


def others(market: Market, train: Window, block: Window, horizon: int, regime: str) -> list[Window]:
    """What is left of the train window when a block is purged; parts without an episode of the regime are dropped."""
    gap = market.calendar.rows(PURGE) + horizon
    parts = [Window(train.start, block.start - gap), Window(block.stop + gap, train.stop)]
    return [part for part in parts if long_stretches(market, part, regime, horizon)[1]]


def crossfit(
    config: Config, prepared: Prepared, settings: DirectConfig, windows: Sequence[Window], *, late: bool = False
) -> dict[str, Floats]:
    """Daily net return of each block over holding e, by its first and last day, of an actor trained without it.

    With `late` every trade is executed one close late.

    The actors learn side by side, directly (no critic), each from the walkers of its own days.
    """
    market, world, train = prepared.market, prepared.world, prepared.fold.train
    networks = build_networks(prepared.spec, settings.network, config.seed, world.device, computing_of(config.hardware))
    agent = Direct(networks, settings, world, torch_stream(config.seed, "crossfit/agent", world.device))
    regime, days = _regime(config), market.calendar.rows(config.env.episode_days)
    parts = [others(market, train, block, settings.horizon, regime) for block in windows]

    def draw(actor: int, count: int, rng: np.random.Generator) -> list[Rows]:
        share = np.array([len(part) for part in parts[actor]], dtype=np.float64)
        chosen = rng.multinomial(count, share / share.sum())
        return [
            rows
            for part, number in zip(parts[actor], chosen.tolist(), strict=True)
            for rows in (training_paths(market, part, regime, days, number, 0, rng, settings.horizon) if number else [])
        ]

    walkers = Walkers(
        market, world, draw, actors=len(windows), walkers=settings.walkers, horizon=settings.horizon,
        seed=config.seed, stream="crossfit/walkers",
    )  # fmt: skip
    updates = config.budget.crossfit_updates
    with progress(updates, "cross-fitting the confidence", 0) as advance:
        for update in range(updates):
            now = OfflineCoefficients(lr_factor=cosine(update / updates))
            agent.update(own_rows(walkers.batch()), now)
            walkers.advance(agent.reached)
            advance(1)
    tilted, held = (lived_apart(networks.actor, prepared, windows, kappa, late=late) for kappa in (1.0, 0.0))
    dates = [market.dates[[window.start, window.stop - 1]] for window in windows]
    pairs = zip(dates, tilted, held, strict=True)
    return {f"{first} to {last}": one - other for (first, last), one, other in pairs}


@torch.no_grad()
def lived_apart(
    actor: Actor, prepared: Prepared, windows: Sequence[Window], kappa: float, *, late: bool = False
) -> list[Floats]:
    """Daily net returns [R] of each window; actor k lives through window k, from cash, at `kappa` of its tilt.

    Side by side, and each day as in a backtest: on its first day an actor buys its whole aim. With `late` every trade
    after that is executed one close late.
    """
    market, world = prepared.market, prepared.world
    decision = market.decision.copy()
    decision[[window.start - 1 for window in windows]] = True
    simulator = Simulator(replace(market, decision=decision), prepared.accounting)
    simulator.reset(padded([np.asarray(window.decisions, dtype=np.int64) for window in windows]))
    actor.eval()
    actor.confidence = kappa
    nets: list[Floats] = []

    def decide(*now: NDArray[Any]) -> Floats:
        said = actor.members(world.observe(*now), width=False)
        return (said.mean if nets else said.aim).double().cpu().numpy()

    act = lagged(decide) if late else decide
    for _ in range(max(len(window) for window in windows)):
        nets.append(simulator.step(act(simulator.row, simulator.drifted, simulator.drawdown)).booked.net)
    actor.confidence = 1.0
    actor.train()
    return [np.array([each[place] for each in nets[: len(window)]]) for place, window in enumerate(windows)]


def _regime(config: Config) -> str:
    """Days that a run learns from, by their label: phase 1 learns from all."""
    return config.market_regime.name if isinstance(config.algo, OnlineAlgorithm) else "all"
