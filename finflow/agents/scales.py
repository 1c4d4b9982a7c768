"""The scale of CQL: measured once on the trained critic, then frozen and kept with the weights."""

import torch

from finflow.envs.behaviours import behave, draw_personas
from finflow.envs.world import State, World
from finflow.nn.networks import Networks

ACTIONS = 8


@torch.no_grad()
def measure_scales(networks: Networks, world: World, state: State, generator: torch.Generator) -> tuple[float, float]:
    """s_A, standard deviation of advantages over behaviours' actions, and s_Q, that of the atoms.

    Averaged over the B given states, with 8 fresh behaviours in each; both in units of the reward.
    """
    critic = networks.critic
    proposals = [
        behave(draw_personas(len(state.row), state.priors.shape[1], generator), state, generator)
        for _ in range(ACTIONS)
    ]
    actions = world.execute(torch.stack(proposals, 1), state).float()
    atoms = critic.atoms(critic.embed(state), actions)
    q = atoms.mean(-1).amin(-1)
    advantage = q - q.mean(1, keepdim=True)
    spread = atoms.std(-1, correction=0)
    return float(advantage.square().mean().sqrt()), float(spread.mean())
