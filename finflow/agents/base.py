"""What every learner is built of: batch, state, optimiser step, several processes, CQL's scale, value gradients.

Several processes, as torchrun starts them, train one agent: every process runs the same run, with the same data,
episodes, batches and weights. Each computes the gradient of its rows of a batch, and DistributedDataParallel averages
the gradients.

Value gradients are exact gradients of a policy's reward along known paths, over a horizon: SVG(H). Trades do not move
prices, so along a recorded or resampled path the net reward of each day and the weights on the next are known,
differentiable functions of the policy (Heess et al. 2015; with a critic at the end SAC-SVG, Amos et al. 2021; without
one direct reinforcement, Moody & Saffell 2001, and deep hedging, Buehler et al. 2019).
"""

import copy
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finflow.envs.collect import behave, draw_personas
from finflow.envs.ledger import traded
from finflow.envs.simulator import State, View, World, joined
from finflow.losses import anchor_loss
from finflow.nn.actor import Actor, Decision, benchmark
from finflow.nn.networks import Networks


class Paths(NamedTuple):
    """Positions of walkers and the days ahead of them: W walkers for each of A actors, one actor after the other.

    rows [A W, H + 1] decision rows, the last that of the state after H days; drifted [A W, n] and drawdown [A W] at
    the first; all_open: whether every name is tradable, and a decision taken, on all of these days.
    """

    rows: Tensor
    drifted: Tensor
    drawdown: Tensor
    all_open: bool


class Batch(NamedTuple):
    """B complete transitions, and the paths of value gradients where the learner has a horizon.

    state, next_state; weights [B, n] executed; reward [B]; discount [B] gamma, or 0 after ruin (a time limit
    bootstraps); next_weights [B, n] the behaviour's next executed weights and has_next [B] bool, where known.
    """

    state: State
    weights: Tensor
    reward: Tensor
    discount: Tensor
    next_state: State
    next_weights: Tensor
    has_next: Tensor
    paths: Paths | None = None


@dataclass(frozen=True)
class OfflineCoefficients:
    """Phase 1: `lr_factor` multiplies the learning rates; `learn_policy` is off while only values are refitted."""

    lr_factor: float = 1.0
    learn_policy: bool = True


@dataclass(frozen=True)
class OnlineCoefficients:
    """Phase 2, as reached by the schedules.

    sigma: standard deviation of a logit whose entropy is the target; anchor: eta of KL(aim || e);
    temperature and balance of the gate; cql: factor on the CQL weight; learn_policy is off at the hand-over;
    lr_factor multiplies the learning rates.
    """

    sigma: float
    anchor: float
    temperature: float
    balance: float
    cql: float
    learn_policy: bool = True
    lr_factor: float = 1.0


def world_size() -> int:
    """Processes that train together; 1 on its own."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them; 0 writes the run."""
    return dist.get_rank() if world_size() > 1 else 0


def mean_metrics(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean of every process's scalars, by name, after an update of each on its own rows of the same batch."""
    if world_size() == 1:
        return metrics
    values = all_reduce_mean(torch.stack([value.float() for value in metrics.values()]))
    return dict(zip(metrics, values.unbind(), strict=True))


def own_rows(batch: Batch) -> Batch:
    """Every `world_size`-th row, since a batch has its offline rows before its online ones."""
    if world_size() == 1:
        return batch
    own = slice(rank(), None, world_size())
    cut: dict[str, Any] = {
        name: part.at(own) if isinstance(part, State) else part[own]
        for name, part in batch._asdict().items()
        if name != "paths"
    }
    if batch.paths is not None:
        rows, drifted, drawdown, all_open = batch.paths
        cut["paths"] = Paths(rows[own], drifted[own], drawdown[own], all_open)
    return Batch(**cut)


class LossModule(nn.Module):
    """All trained parts of an agent as one module whose forward pass computes any of the agent's losses.

    An agent uses its critic in three ways within one update, and DistributedDataParallel knows a single `forward`.
    """

    def __init__(self, parts: Iterable[nn.Module], free: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.parts, self.free = nn.ModuleList(parts), nn.ParameterList(free)

    def forward(self, loss: Callable[..., Any], *inputs: Any) -> Any:
        """`loss(*inputs)`."""
        return loss(*inputs)


def gathered(part: Tensor) -> list[Tensor]:
    """`part` of every process, of the same shape in each, without gradient."""
    if world_size() == 1:
        return [part]
    parts = [torch.empty_like(part) for _ in range(world_size())]
    dist.all_gather(parts, part.contiguous())
    return parts


def all_gather(rows: Tensor) -> tuple[Tensor, slice]:
    """Rows [b] of every process, one after the other, [world_size b], without gradient; and where one's own are."""
    return torch.cat(gathered(rows)), slice(rank() * len(rows), (rank() + 1) * len(rows))


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean of every process's tensor, without gradient."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def own_stream(generator: torch.Generator) -> torch.Generator:
    """A random stream of this process alone; with a single process, `generator` itself."""
    if world_size() == 1:
        return generator
    own = torch.Generator(generator.device)
    own.manual_seed((generator.initial_seed() + 1 + rank()) % 2**63)
    return own


def all_reduce_max(number: int) -> int:
    """The largest of all processes' numbers."""
    if world_size() == 1:
        return number
    found = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


class Checkpointable(Protocol):
    """A part of a run whose state can be taken and given back."""

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs: tensors, arrays and plain data, nested."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` gave."""


class Stateful:
    """Takes and restores the attributes named in `STATE`; a leading underscore is no part of a name in the state.

    An attribute with a `state_dict` of its own gives that, a generator its stream, a parameter its values; a tensor
    returns to its device; of anything else a shallow copy is kept. A checkpoint is the first process's, so no other one
    takes its own stream, `generator`, from there.
    """

    STATE: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """See `Checkpointable`."""
        return {name.lstrip("_"): _taken(getattr(self, name)) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in self.STATE:
            value, stored = getattr(self, name), state[name.lstrip("_")]
            if isinstance(value, torch.Generator):
                if name != "generator" or rank() == 0:
                    value.set_state(stored)
            elif isinstance(value, nn.Parameter):
                with torch.no_grad():
                    value.copy_(stored)
            elif stored is not None and hasattr(value, "load_state_dict"):
                value.load_state_dict(stored)
            elif isinstance(value, torch.Tensor) and isinstance(stored, torch.Tensor):
                setattr(self, name, stored.to(value.device))
            else:
                setattr(self, name, copy.copy(stored))


def _taken(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, nn.Parameter):
        return value.detach().clone()
    return value.state_dict() if hasattr(value, "state_dict") else copy.copy(value)


class Descent(Stateful):
    """Steps of an agent's optimisers; in float16 the losses are scaled (Micikevicius et al. 2018).

    A step whose scaled gradients are not finite is skipped and the scale halved, which is usual at the start.

    Parameters
    ----------
    free : trained parameters beside critic and actor.

    Attributes
    ----------
    forward : `forward(loss, *inputs)` is `loss(*inputs)`. Call `backward` before the next `forward`: it averages
        gradients over processes.
    """

    STATE = ("scaler",)

    def __init__(self, networks: Networks, free: Iterable[nn.Parameter] = ()) -> None:
        self.forward: Callable[..., Any] = operator.call
        if world_size() > 1:
            trained = LossModule([networks.critic, networks.actor], free)
            self.forward = DistributedDataParallel(trained, broadcast_buffers=False, find_unused_parameters=True)
        half = networks.computing.half is torch.float16
        self.scaler = torch.amp.GradScaler(next(networks.parameters()).device.type, enabled=half)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the parameters' own."""
        self.scaler.scale(loss).backward()

    def clip(self, optimiser: torch.optim.Optimizer, clipped: Iterable[Iterable[Tensor]], norm: float) -> list[Tensor]:
        """Clip each group of parameters, all of `optimiser`, to `norm`; the norms before."""
        self.scaler.unscale_(optimiser)
        return [torch.nn.utils.clip_grad_norm_(group, norm) for group in clipped]

    def step(self, *optimisers: torch.optim.Optimizer) -> None:
        """One step of each; the end of an update."""
        for optimiser in optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()


ACTIONS = 8
TURNOVER = 0.5
"""Two-way, of every portfolio that advantages are measured over: else they are the cost of trading, and nothing more
(measured: turnover explains 98 % of Q's variance within a state, the signal 1 %)."""


class Scales(NamedTuple):
    """s_A, standard deviation of advantages over portfolios of equal turnover, and s_Q, that of the atoms.

    Both in units of the reward.
    """

    advantage: float
    atoms: float


def equal_turnover(world: World, state: State, generator: torch.Generator) -> Tensor:
    """8 portfolios a state that behaviours aim at, each as far as a two-way turnover of .5 goes, [B, 8, n] float64.

    A portfolio that lies closer than that is taken whole.
    """
    count, priors = len(state.row), state.priors.shape[1]
    proposals: list[Tensor] = []
    for _ in range(ACTIONS):
        personas = draw_personas(count, priors, generator)
        proposals.append(behave(personas._replace(rate=torch.ones_like(personas.rate)), state, generator))
    aims, held = torch.stack(proposals, 1), state.drifted[:, None]
    part = (TURNOVER / traded(aims, held).clamp_min(1e-12)).clamp_max(1.0)
    return world.execute(held + (aims - held) * part[..., None], state)


@torch.no_grad()
def advantage_spread(networks: Networks, world: World, state: State, generator: torch.Generator) -> Tensor:
    """s_A over the B states, scalar: see `measure_scales`."""
    critic = networks.critic
    q = critic.values(critic.embed(state), equal_turnover(world, state, generator).float()).amin(-1)
    return (q - q.mean(1, keepdim=True)).square().mean().sqrt().clamp_min(1e-6)


@torch.no_grad()
def measure_scales(networks: Networks, world: World, state: State, generator: torch.Generator) -> Scales:
    """Both scales, averaged over the B given states, with 8 portfolios in each."""
    critic = networks.critic
    atoms = critic.atoms(critic.embed(state), equal_turnover(world, state, generator).float())
    q = atoms.mean(-1).amin(-1)
    advantage = q - q.mean(1, keepdim=True)
    spread = atoms.std(-1, correction=0)
    return Scales(float(advantage.square().mean().sqrt()), float(spread.mean()))


class Walk(NamedTuple):
    """H days of B walkers.

    rewards [B, H] and anchor (scalar, mean KL(aim || e)) with gradient; final: the state after the last day, with
    gradient through what is held; reached: drifted [B, n] and drawdown [B] there, without; last: the last decision.
    """

    rewards: Tensor
    anchor: Tensor
    final: State
    reached: tuple[Tensor, Tensor]
    last: Decision


def walk(
    actor: Actor,
    world: World,
    paths: Paths,
    noise: float,
    generator: torch.Generator,
    temperature: float = 1.0,
    keep: Tensor | None = None,
) -> Walk:
    """Follow the policy's mean for H days, each actor with its own walkers.

    Parameters
    ----------
    noise : standard deviation of noise on the features, drawn anew each day.
    temperature, keep : of the gate, see `Actor`.
    """
    rows, drifted, drawdown, all_open = paths
    days = rows.shape[1] - 1
    # The day comes first, so that the data of a day are contiguous.
    ahead = world.look(rows.T.contiguous(), noise, generator)
    rewards, anchors, decision = list[Tensor](), list[Tensor](), None
    for day in range(days):
        state = joined(View(*(part[day] for part in ahead)), drifted, drawdown)
        decision = actor.members(state, temperature, keep, width=False)
        outcome = world.live(decision.mean, state, all_open=all_open)
        rewards.append(outcome.reward)
        anchors.append(anchor_loss(decision.aim, benchmark(state)[:, 0]))
        drifted, drawdown = outcome.drifted, outcome.drawdown
    assert decision is not None
    final = joined(View(*(part[days] for part in ahead)), drifted, drawdown)
    reached = drifted.detach(), drawdown.detach()
    return Walk(torch.stack(rewards, 1).float(), torch.stack(anchors).mean(), final, reached, decision)


def discounted(rewards: Tensor, value: Tensor | float, gamma: float) -> Tensor:
    """Mean reward a day of each path: (sum_h gamma^h r_h + gamma^H value) / H, [B, H] and [B] -> [B]."""
    days = rewards.shape[1]
    weight = gamma ** torch.arange(days, device=rewards.device, dtype=rewards.dtype)
    return ((rewards * weight).sum(1) + gamma**days * value) / days
