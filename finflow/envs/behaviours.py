"""Behaviour policies: they fill the offline data, and their actions relabel a batch.

All of them are one formula. A persona aims at a mixture of basis portfolios (the priors and 1/N, or a random point
of the simplex), blurs it by log-normal noise and moves a fraction `rate` of the way from the weights it holds.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from finflow.envs.world import State


class Personas(NamedTuple):
    """B behaviours: mixture [B, K + 1] over priors and 1/N; blend [B] of a random portfolio; noise [B]; rate [B]."""

    mixture: Tensor
    blend: Tensor
    noise: Tensor
    rate: Tensor


def draw_personas(count: int, experts: int, generator: torch.Generator) -> Personas:
    """Draw behaviours: single priors, mixtures, 1/N, buy-and-hold (rate 0), noisy and random portfolios.

    Single priors have probability .45 together, 1/N .15, mixtures .2, random portfolios .2; half of all are noisy; a
    fifth hold (rate 0), a fifth trade all the way (rate 1), the rest 2 to 40 % of the way.
    """
    device = generator.device
    dims = experts + 1
    kind = torch.rand(count, generator=generator, device=device)
    expo = -torch.log(torch.rand(count, dims, generator=generator, device=device).clamp_min(1e-12))
    mixed = expo / expo.sum(-1, keepdim=True)  # Dirichlet(1)
    single = torch.randint(experts, (count,), generator=generator, device=device)
    places = torch.arange(dims, device=device)  # torch's one_hot reads the values, which waits for the device
    one_hot, equal = (single[:, None] == places).float(), (places == experts).float()
    mixture = torch.where((kind < 0.45)[:, None], one_hot, torch.where((kind < 0.60)[:, None], equal, mixed))
    blend = (kind >= 0.80).float()
    noise = torch.where(torch.rand(count, generator=generator, device=device) < 0.5, 0.0, 0.4)
    pace = torch.rand(count, generator=generator, device=device)
    partial = 0.02 + 0.38 * torch.rand(count, generator=generator, device=device)
    rate = torch.where(pace < 0.2, 0.0, torch.where(pace < 0.4, 1.0, partial))
    return Personas(mixture, blend, noise, rate)


def behave(personas: Personas, state: State, generator: torch.Generator) -> Tensor:
    """Target portfolios of `personas` in `state`, [B, n] float64 on the simplex of tradable assets.

    Names that cannot be traded get 0; the ledger keeps or closes them, and spreads the target over what is left.
    """
    tradable = state.tradable
    risky = tradable.float()
    risky[:, -1] = 0.0
    equal = risky / risky.sum(-1, keepdim=True).clamp_min(1.0)
    equal[:, -1] = (risky.sum(-1) <= 0).float()  # all cash where nothing else can be traded
    basis = torch.cat([state.priors, equal[:, None]], 1)
    aim = torch.einsum("bk,bkn->bn", personas.mixture, basis)
    device = generator.device
    expo = -torch.log(torch.rand(aim.shape, generator=generator, device=device).clamp_min(1e-12))
    scattered = expo.square() * tradable  # squared exponentials: more concentrated than Dirichlet(1)
    scattered = scattered / scattered.sum(-1, keepdim=True)
    aim = torch.lerp(aim, scattered, personas.blend[:, None])
    shock = torch.randn(aim.shape, generator=generator, device=device)
    blurred = (aim * torch.exp(personas.noise[:, None] * shock) * tradable).double()
    blurred = blurred / blurred.sum(-1, keepdim=True)
    held = state.drifted * tradable
    held[:, -1] += held.sum(-1) <= 0  # all of it in names that cannot be traded
    held = held / held.sum(-1, keepdim=True)
    rate = personas.rate[:, None].double()
    return (1.0 - rate) * held + rate * blurred
