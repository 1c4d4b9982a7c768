"""The scale of CQL: measured once on the trained critic, then frozen and stored with the weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from finflow.envs.behaviours import behave, draw_personas
from finflow.envs.ledger import traded
from finflow.envs.world import State, World
from finflow.nn.networks import Networks

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
