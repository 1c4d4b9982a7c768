"""FinFlow's learners as contenders, on a synthetic market of 20 names (21 with cash)."""

from collections.abc import Callable

import torch

import finflow
from benchmarks.sizes import ACTION, ATOMS, BATCH, CQL_ACTIONS, HIDDEN, MEMORY
from benchmarks.worker import Burst
from finflow.agents.batch import OfflineCoefficients, OnlineCoefficients
from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.envs.collect import collect
from finflow.nn.networks import build_networks
from finflow.replay import Replay
from finflow.seeding import torch_stream
from finflow.stages.prepare import compiled, computing_of, prepare, use_hardware
from finflow.training.batches import Batcher

DAYS = 1600
MARKET = [f"env.synthetic.assets={ACTION - 1}", f"env.synthetic.days={DAYS}", "env=synthetic", "hardware=cpu"]
SIZES = [f"algo.network.hidden_dim={HIDDEN}", f"algo.batch_size={BATCH}"]
NOW = OnlineCoefficients(sigma=0.2, anchor=0.5, temperature=1.0, balance=1e-3, cql=1.0)


def _setting(stage: str, *changes: str, atoms: int = ATOMS):
    """Configuration, what is prepared of it, networks, a memory of behaviours' transitions, and the hardware."""
    config = finflow.load(stage, [*MARKET, *SIZES, *changes])
    device = use_hardware(config.hardware)
    prepared = prepare(config, device)
    shape = config.algo.network.model_copy(update={"n_quantiles": atoms})
    algo = config.algo.model_copy(update={"network": shape})
    networks = build_networks(prepared.spec, shape, 0, device, computing_of(config.hardware))
    episodes, days = MEMORY // 200, 200
    world = (
        prepared.world if device.type == "cpu" else prepare(config, torch.device("cpu")).world
    )  # where it is stepped
    data = collect(prepared.market, world, prepared.fold.train, episodes, days, 0.0, 0, {})
    return algo, prepared.world, networks, Replay.of(data, device), config.hardware


def iql(*changes: str, atoms: int = ATOMS, with_batch: bool) -> Burst:
    algo, world, networks, memory, hardware = _setting("pretrain", *changes, atoms=atoms)
    agent, generator, now = IQL(networks, algo), torch_stream(0, "bench", world.device), OfflineCoefficients()
    batcher = Batcher(world, algo.relabel_fraction, 0.0, algo.gamma, generator)
    fixed = batcher.complete(memory.sample(algo.batch_size, generator))
    update = compiled(agent.update, hardware)

    def burst(updates: int) -> None:
        for _ in range(updates):
            update(batcher.complete(memory.sample(algo.batch_size, generator)) if with_batch else fixed, now)

    return burst


def bcell(*changes: str, atoms: int = ATOMS, with_batch: bool = True) -> Burst:
    algo, world, networks, memory, hardware = _setting("finetune", "init.weights=null", *changes, atoms=atoms)
    generator = torch_stream(0, "bench", world.device)
    agent = BCell(networks, algo, world, generator)
    agent.scales = (1.0, 10.0)  # as if measured: without them there is no CQL
    batcher = Batcher(world, algo.relabel_fraction, 0.0, algo.gamma, generator, lambda s: agent.act(s, generator))
    fixed = batcher.complete(memory.sample(algo.batch_size, generator))
    update = compiled(agent.update, hardware)

    def burst(updates: int) -> None:
        for _ in range(updates):
            update(batcher.complete(memory.sample(algo.batch_size, generator)) if with_batch else fixed, NOW)

    return burst


NO_CQL, COMPILED = "algo.cql.alpha=0", "hardware.compile=default"
MLP = ("algo.network.kind=mlp", "algo.network.layer_norm=false")  # as the peers have it
CQL_DRAWS = "algo.cql.n_actions={}"
DRAWS = CQL_DRAWS.format(CQL_ACTIONS)
EXACT = "algo.cql.batch_fraction=1"
CONTENDERS: dict[str, Callable[[], Burst]] = {
    "IQL mlp, 1 atom": lambda: iql(*MLP, atoms=1, with_batch=False),
    "IQL mlp, 1 atom, compiled": lambda: iql(*MLP, COMPILED, atoms=1, with_batch=False),
    "IQL mlp, 32 atoms": lambda: iql(*MLP, atoms=ATOMS, with_batch=False),
    "IQL portfolio, 32 atoms": lambda: iql(atoms=ATOMS, with_batch=False),
    "IQL portfolio, 32 atoms, with its batch": lambda: iql(atoms=ATOMS, with_batch=True),
    "SAC mlp": lambda: bcell("algo=sac", *MLP, with_batch=False),
    "SAC mlp, compiled": lambda: bcell("algo=sac", *MLP, COMPILED, with_batch=False),
    "B-Cell mlp, no CQL": lambda: bcell(*MLP, NO_CQL, with_batch=False),
    "B-Cell portfolio, no CQL": lambda: bcell(NO_CQL, with_batch=False),
    "B-Cell mlp, CQL exact": lambda: bcell(*MLP, DRAWS, EXACT, with_batch=False),
    "B-Cell mlp, CQL by default": lambda: bcell(*MLP, DRAWS, with_batch=False),
    "B-Cell portfolio, CQL exact": lambda: bcell(DRAWS, EXACT, with_batch=False),
    "B-Cell portfolio, CQL by default": lambda: bcell(DRAWS, with_batch=False),
    "B-Cell portfolio, CQL by default, with its batch": lambda: bcell(DRAWS),
}
