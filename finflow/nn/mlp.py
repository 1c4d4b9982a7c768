"""Plain networks on the flat state, two hidden layers each: `algo.network.kind=mlp`.

They identify assets by position: another universe, or the same in another order, needs other weights.
"""

import torch
from torch import Tensor, nn

from finflow.envs.world import State
from finflow.nn.actor import Actor, set_start
from finflow.nn.critic import Critic, first_layer, normalised
from finflow.nn.layers import MemberLinear, MemberNorm, uniform


def flat(state: State) -> Tensor:
    """Features and w- of every risky name, then the market, [B, (n - 1) (F + 1) + M + 2]; cash is what is left."""
    return torch.cat([state.assets[:, :-1, :-1].flatten(1), state.market], -1)


class MlpActor(Actor):
    """One trunk, and linear heads for tilts, gate, rate and width.

    Experts see every input, so that only their priors and their heads tell them apart.

    Parameters
    ----------
    actors : A.
    state_dim : length of the flat state.
    experts, assets : K and n.
    hidden_dim : width of both hidden layers.
    dropout : share of the second layer's units dropped while training.
    layer_norm : normalise the first hidden layer.
    """

    def __init__(
        self, actors: int, state_dim: int, experts: int, assets: int, hidden_dim: int, dropout: float, layer_norm: bool
    ) -> None:
        super().__init__(actors)
        self.trunk = nn.Sequential(
            MemberLinear(actors, state_dim, hidden_dim),
            MemberNorm(actors, hidden_dim) if layer_norm else nn.Identity(),
            nn.ReLU(inplace=True), MemberLinear(actors, hidden_dim, hidden_dim), nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )  # fmt: skip
        self.tilt = MemberLinear(actors, hidden_dim, experts * assets)
        nn.init.zeros_(self.tilt.weight)
        nn.init.zeros_(self.tilt.bias)
        gate = MemberLinear(actors, hidden_dim, experts)
        self.gate = gate if experts > 1 else None
        self.rate = MemberLinear(actors, hidden_dim + 2, 1)
        self.sigma = MemberLinear(actors, hidden_dim, assets - 1)
        set_start(gate=gate, rate=self.rate, sigma=self.sigma)

    def encode(self, state: State) -> Tensor:
        """The trunk's last layer."""
        return self.recomputed(self.trunk, self.by_actor(flat(state)))

    def tilts(self, state: State, context: Tensor) -> Tensor:
        """See `Actor`."""
        return self.mixed(self.tilt, context).flatten(0, 1).unflatten(-1, (-1, state.priors.shape[-1]))

    def widths(self, state: State, context: Tensor) -> Tensor:
        """See `Actor`."""
        return self.mixed(self.sigma, context).flatten(0, 1)


class MlpCritic(Critic):
    """Twins and value, each with layers of its own.

    The first layer is split into W_s s, computed once per state, and W_a a, computed for each action.

    Parameters
    ----------
    state_dim : length of the flat state.
    assets : n.
    hidden_dim : width of both hidden layers.
    atoms : N_q.
    layer_norm : normalise the first hidden layer.
    """

    def __init__(self, state_dim: int, assets: int, hidden_dim: int, atoms: int, layer_norm: bool) -> None:
        super().__init__()
        self.from_state = nn.Linear(state_dim, 2 * hidden_dim)
        self.from_action = nn.Parameter(uniform(2, assets, hidden_dim))
        self.norm_weight = nn.Parameter(torch.ones(2, 1, hidden_dim)) if layer_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(2, 1, hidden_dim)) if layer_norm else None
        self.second = nn.Parameter(uniform(2, hidden_dim, hidden_dim))
        self.second_bias = nn.Parameter(torch.zeros(2, 1, hidden_dim))
        self.out = nn.Parameter(uniform(2, hidden_dim, atoms))
        self.out_bias = nn.Parameter(torch.zeros(2, 1, atoms))
        self.value_head = nn.Sequential(
            nn.Linear(state_dim, hidden_dim), normalised(hidden_dim, layer_norm), nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, 1),
        )  # fmt: skip

    def embed(self, state: State) -> tuple[Tensor, ...]:
        """W_s s of both twins [B, 2 H], and the flat state."""
        inputs = flat(state)
        return self.mixed(self.from_state, inputs), inputs

    def hidden(self, *inputs: Tensor) -> list[Tensor]:
        """See `Critic`."""
        state, _, weights = inputs
        first = first_layer(state, weights.flatten(0, 1), self.from_action, self.norm_weight, self.norm_bias)
        second = zip(self.second_bias, first, self.second, strict=True)
        return [torch.addmm(bias, part, weight).relu_() for bias, part, weight in second]

    def value(self, embedding: tuple[Tensor, ...]) -> Tensor:
        """See `Critic`."""
        return self.recomputed(self.value_head, embedding[1]).squeeze(-1)

    def value_of(self, state: State) -> Tensor:
        """See `Critic`; the twins' first layer is left out."""
        return self.recomputed(self.value_head, flat(state)).squeeze(-1)
