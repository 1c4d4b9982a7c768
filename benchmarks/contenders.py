"""FinFlow's learners as contenders, on a synthetic market of 20 names (21 with cash)."""

from collections.abc import Callable
from functools import partial

import torch

import finflow
from benchmarks.sizes import ACTION, ATOMS, BATCH, CQL_ACTIONS, HIDDEN, MEMORY
from benchmarks.worker import Burst
from finflow.agents import bcell, iql
from finflow.agents.base import Batch, OfflineCoefficients, OnlineCoefficients, Scales
from finflow.envs.collect import collect
from finflow.nn.networks import Networks, build_networks
from finflow.schema import Config
from finflow.schema.sections import BCellConfig, IQLConfig
from finflow.seeding import torch_stream
from finflow.stages.prepare import Prepared, compiled, computing_of, fit, load_market, use_hardware
from finflow.stages.run import walkers_of
from finflow.training.replay_buffer import Batcher, ReplayBuffer

DAYS = 1600
MARKET = [f"env.synthetic.assets={ACTION - 1}", f"env.synthetic.days={DAYS}", "env=synthetic", "hardware=cpu"]
SIZES = [f"algo.network.hidden_dim={HIDDEN}", f"algo.batch_size={BATCH}"]
NOW = OnlineCoefficients(sigma=0.2, anchor=0.05, temperature=1.0, balance=0.0, cql=1.0)


def updates_of(
    config: Config,
    prepared: Prepared,
    networks: Networks,
    algo: IQLConfig | BCellConfig,
    memory: ReplayBuffer,
    *,
    with_batch: bool,
) -> tuple[Callable[[], Batch], Callable[[Batch], object]]:
    """How a batch of the phase is made, paths included, or the same one again and again; and one update by it."""
    world = prepared.world
    generator = torch_stream(0, "bench", world.device)
    if isinstance(algo, IQLConfig):
        agent, act, paths = iql.IQL(networks, algo, world, generator), None, algo.extraction == "value_gradient"
        update = partial(compiled(agent.update, config.hardware), coefficients=OfflineCoefficients())
    else:
        learner = agent = bcell.BCell(networks, algo, world, generator)
        agent.scales = Scales(1.0, 10.0)  # as if measured: without them there is no CQL
        act, paths = (lambda state: learner.act(state, generator)), algo.horizon > 0
        update = partial(compiled(agent.update, config.hardware), coefficients=NOW)
    batcher = Batcher(world, algo.relabel_fraction, algo.network.state_noise, algo.gamma, generator, act)
    walkers = walkers_of(config, prepared, algo, "bench/walkers") if paths else None

    def draw() -> Batch:
        batch = batcher.complete(memory.sample(algo.batch_size, generator))
        if walkers is None:
            return batch
        if agent.reached is not None:
            walkers.advance(agent.reached)
        return batch._replace(paths=walkers.paths())

    fixed = draw()
    return (draw if with_batch else lambda: fixed), update


def learner(stage: str, *changes: str, atoms: int = ATOMS, with_batch: bool) -> Burst:
    """Updates of one phase on a memory of behaviours' transitions."""
    config = finflow.load(stage, [*MARKET, *SIZES, *changes])
    device = use_hardware(config.hardware)
    prepared, algo = fit(config, load_market(config), device), config.algo
    assert isinstance(algo, IQLConfig | BCellConfig)
    algo = algo.model_copy(update={"network": algo.network.model_copy(update={"n_quantiles": atoms})})
    networks = build_networks(prepared.spec, algo.network, 0, device, computing_of(config.hardware))
    where = (
        prepared.world if device.type == "cpu" else fit(config, load_market(config), torch.device("cpu")).world
    )  # it is stepped there
    data = collect(prepared.market, where, prepared.fold.train, MEMORY // 200, 200, 0.0, 0, {})
    draw, update = updates_of(config, prepared, networks, algo, ReplayBuffer.of(data, device), with_batch=with_batch)

    def burst(updates: int) -> None:
        for _ in range(updates):
            update(draw())

    return burst


def phase1(*changes: str, atoms: int = ATOMS, with_batch: bool = True) -> Burst:
    return learner("pretrain", *changes, atoms=atoms, with_batch=with_batch)


def phase2(*changes: str, atoms: int = ATOMS, with_batch: bool = True) -> Burst:
    return learner("finetune", "init.weights=null", *changes, atoms=atoms, with_batch=with_batch)


NO_CQL, COMPILED = "algo.cql.alpha=0", "hardware.compile=default"
ALONE = "algo.actors=1"
PAPER = ("algo.extraction=awr", ALONE)
BY_CRITIC = ("algo.horizon=0", ALONE)
MLP = ("algo.network.kind=mlp", "algo.network.layer_norm=false", "algo.network.state_noise=0")  # as the peers have it
CQL_DRAWS = "algo.cql.n_actions={}"
DRAWS = CQL_DRAWS.format(CQL_ACTIONS)
EXACT = "algo.cql.batch_fraction=1"
CONTENDERS: dict[str, Callable[[], Burst]] = {
    "IQL mlp, 1 atom": lambda: phase1(*MLP, *PAPER, atoms=1, with_batch=False),
    "IQL mlp, 1 atom, compiled": lambda: phase1(*MLP, *PAPER, COMPILED, atoms=1, with_batch=False),
    "IQL mlp, 32 atoms": lambda: phase1(*MLP, *PAPER, with_batch=False),
    "IQL portfolio, 32 atoms": lambda: phase1(*PAPER, with_batch=False),
    "IQL as shipped: value gradients, 4 actors": phase1,
    "IQL as shipped, 1 actor": lambda: phase1(ALONE),
    "SAC mlp": lambda: phase2("algo=sac", ALONE, *MLP, with_batch=False),
    "SAC mlp, compiled": lambda: phase2("algo=sac", ALONE, *MLP, COMPILED, with_batch=False),
    "B-Cell mlp, no CQL": lambda: phase2(*MLP, *BY_CRITIC, NO_CQL, with_batch=False),
    "B-Cell portfolio, no CQL": lambda: phase2(*BY_CRITIC, NO_CQL, with_batch=False),
    "B-Cell mlp, CQL exact": lambda: phase2(*MLP, *BY_CRITIC, DRAWS, EXACT, with_batch=False),
    "B-Cell mlp, CQL by default": lambda: phase2(*MLP, *BY_CRITIC, DRAWS, with_batch=False),
    "B-Cell portfolio, CQL exact": lambda: phase2(*BY_CRITIC, DRAWS, EXACT, with_batch=False),
    "B-Cell portfolio, CQL by default": lambda: phase2(*BY_CRITIC, DRAWS, with_batch=False),
    "B-Cell portfolio, CQL by default, with its batch": lambda: phase2(*BY_CRITIC, DRAWS),
    "B-Cell as shipped: value gradients, 4 actors": phase2,
    "B-Cell as shipped, 1 actor": lambda: phase2(ALONE),
}
