"""Plain networks: what they compute, by hand; how they start; what they do not share with the portfolio network."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from finflow.envs.simulator import State
from finflow.nn.networks import MlpActor, MlpCritic, Networks, ObservationSpec, build_networks
from finflow.schema.sections import Network

MakeState = Callable[..., State]
Make = Callable[..., Networks]
B, N, K, HIDDEN, ATOMS = 6, 5, 6, 16, 6


@pytest.fixture
def make(spec: ObservationSpec) -> Make:
    def build(
        seed: int = 0, *, scatter: bool = False, dropout: float = 0.0, layer_norm: bool = True, actors: int = 1
    ) -> Networks:
        shape = Network(
            kind="mlp",
            embed_dim=1,
            hidden_dim=HIDDEN,
            n_quantiles=ATOMS,
            layer_norm=layer_norm,
            dropout=dropout,
            state_noise=0.0,
            actors=actors,
        )
        networks = build_networks(replace(spec, assets=tuple("ABCDE")), shape, seed, torch.device("cpu"))
        if scatter:
            g = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in networks.parameters():
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
        return networks

    return build


def _actions(count: int) -> Tensor:
    return torch.softmax(2 * torch.randn(B, count, N, generator=torch.Generator().manual_seed(9)), -1)


def _inputs(state: State) -> Tensor:
    """Row by row: four features, a signal and w- of each of the four risky names, then the market."""
    return torch.stack(
        [torch.cat([*(state.assets[b, i, :6] for i in range(N - 1)), state.market[b]]) for b in range(B)]
    )


@pytest.mark.parametrize("norm", [True, False])
def test_a_twin_is_a_plain_network_of_state_and_action(make: Make, make_state: MakeState, norm: bool) -> None:
    critic, state, actions = make(scatter=True, layer_norm=norm).critic, make_state(masked=(1,)), _actions(3)
    assert isinstance(critic, MlpCritic)
    atoms = critic.atoms(critic.embed(state), actions)
    assert atoms.shape == (B, 3, 2, ATOMS)
    for a in range(3):
        for head in range(2):
            rows = slice(head * HIDDEN, (head + 1) * HIDDEN)
            matrix = torch.cat([critic.from_state.weight[rows], critic.from_action[head].T], 1)
            first = linear(torch.cat([_inputs(state), actions[:, a]], 1), matrix, critic.from_state.bias[rows])
            if norm:
                assert critic.norm_weight is not None
                assert critic.norm_bias is not None
                first = layer_norm(first, (HIDDEN,), critic.norm_weight[head, 0], critic.norm_bias[head, 0])
            second = torch.relu(linear(torch.relu(first), critic.second[head].T, critic.second_bias[head, 0]))
            plain = linear(second, critic.out[head].T, critic.out_bias[head, 0])
            torch.testing.assert_close(atoms[:, a, head], plain, rtol=1e-4, atol=1e-5)


def test_without_layer_norm_nothing_is_normalised(make: Make) -> None:
    networks = make(layer_norm=False)
    assert not any("norm" in name for name, _ in networks.named_parameters())
    assert not any(isinstance(part, torch.nn.LayerNorm) for part in networks.modules())


def test_value_and_critics_share_nothing(make: Make, make_state: MakeState) -> None:
    critic, state = make(scatter=True).critic, make_state()
    critic.value(critic.embed(state)).sum().backward()
    touched = {name.split(".")[0] for name, p in critic.named_parameters() if p.grad is not None}
    assert touched == {"value_head"}


@pytest.mark.parametrize("norm", [True, False])
def test_every_parameter_learns(make: Make, make_state: MakeState, norm: bool) -> None:
    networks, state = make(scatter=True, layer_norm=norm), make_state()
    embedding, decision = networks.critic.embed(state), networks.actor(state)
    loss = networks.critic.atoms(embedding, _actions(2)).square().sum() + networks.critic.value(embedding).sum()
    (loss + (decision.mean * torch.arange(N)).sum() + decision.log_sigma.sum()).backward()
    for part in (networks.actor, networks.critic):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_start_is_that_of_the_portfolio_network(make: Make, make_state: MakeState) -> None:
    """A uniform gate, a rate of .1, sigma .3, and every expert at its prior."""
    state = make_state(masked=(1, 3))
    decision = make().actor(state)
    torch.testing.assert_close(decision.rate, torch.full((B,), 0.1))
    torch.testing.assert_close(decision.gate, torch.full((B, K), 1 / K))
    torch.testing.assert_close(decision.log_sigma.exp(), torch.full((B, N - 1), 0.3))
    priors = (state.priors + 1e-3 / N) * state.tradable[:, None]
    torch.testing.assert_close(decision.experts, priors / priors.sum(-1, keepdim=True))
    assert (decision.experts[~state.tradable[:, None].expand_as(decision.experts)] == 0).all()


def test_the_trade_is_the_sum_of_its_parts(make: Make, make_state: MakeState) -> None:
    state, actor = make_state(masked=(2,)), make(scatter=True).actor
    decision = actor(state)
    held = state.drifted.float() * state.tradable
    held = held / held.sum(-1, keepdim=True)
    parts = [decision.gate[:, k, None] * (decision.experts[:, k] - held) for k in range(K)]
    trade = decision.rate[:, None] * torch.stack(parts).sum(0)
    torch.testing.assert_close(decision.mean - held, trade, rtol=1e-5, atol=1e-6)


def test_dropped_experts_get_no_gate(make: Make, make_state: MakeState) -> None:
    keep = torch.ones(B, K, dtype=torch.bool)
    keep[0, [1, 3]] = False
    assert make(scatter=True).actor(make_state(), 2.0, keep).gate[0, [1, 3]].tolist() == [0.0, 0.0]


def test_names_are_known_by_place(make: Make, make_state: MakeState) -> None:
    networks, state, order = make(scatter=True), make_state(), torch.tensor([2, 0, 3, 1, 4])
    moved = state._replace(
        assets=state.assets[:, order], drifted=state.drifted[:, order], priors=state.priors[..., order]
    )
    assert (networks.actor(moved).mean - networks.actor(state).mean[:, order]).abs().max() > 0.01
    q = networks.critic.atoms(networks.critic.embed(state), _actions(1))
    assert (networks.critic.atoms(networks.critic.embed(moved), _actions(1)[..., order]) - q).abs().max() > 0.01


def test_dropout_works_while_training_only(make: Make, make_state: MakeState) -> None:
    state, actor = make_state(), make(scatter=True, dropout=0.5).actor
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(actor(state).mean, actor(state).mean)
        actor.eval()
        assert torch.equal(actor(state).mean, actor(state).mean)


def test_seed_alone_decides_the_start(make: Make) -> None:
    first, second, other = make(3), make(3), make(4)
    assert isinstance(first.actor, MlpActor)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_values_are_the_means_of_the_atoms(make: Make, make_state: MakeState) -> None:
    critic, state = make(scatter=True).critic, make_state()
    embedding = critic.embed(state)
    means = critic.atoms(embedding, _actions(3)).mean(-1)
    torch.testing.assert_close(critic.values(embedding, _actions(3)), means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(critic.value_of(state), critic.value(embedding), rtol=0, atol=0)
