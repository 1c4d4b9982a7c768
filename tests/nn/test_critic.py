from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from finflow.envs.simulator import State
from finflow.nn.networks import Critic, Embedding, Networks

MakeState = Callable[..., State]
MakeNetworks = Callable[..., Networks]


def _actions(count: int, n: int = 5, batch: int = 6) -> Tensor:
    return torch.softmax(2 * torch.randn(batch, count, n, generator=torch.Generator().manual_seed(9)), -1)


def _plain(critic: Critic, embedding: Embedding, weights: Tensor, head: int) -> Tensor:
    """One head as an ordinary network on [context, sum w_i e_i, turnover, sum w_i^2]; one action [B, n] a state."""
    portfolio = (weights[..., None] * embedding.assets).sum(1)
    turnover = (weights - embedding.drifted)[:, :-1].abs().sum(-1, keepdim=True)
    inputs = torch.cat([embedding.context, portfolio, turnover, (weights**2).sum(-1, keepdim=True)], -1)
    width = critic.from_state.out_features // 2
    rows = slice(head * width, (head + 1) * width)
    matrix = torch.cat([critic.from_state.weight[rows], critic.from_action[head].T], 1)
    first = torch.nn.functional.linear(inputs, matrix, critic.from_state.bias[rows])
    if critic.norm_weight is not None and critic.norm_bias is not None:
        first = torch.nn.functional.layer_norm(first, (width,), critic.norm_weight[head], critic.norm_bias[head])
    return torch.nn.functional.linear(torch.relu(first), critic.out[head].T, critic.out_bias[head])


@pytest.mark.parametrize("norm", [True, False])
def test_factorised_first_layer_equals_a_plain_one(
    make_state: MakeState, make_networks: MakeNetworks, norm: bool
) -> None:
    critic = make_networks(scatter=True, layer_norm=norm).critic
    assert (critic.norm_weight is not None) == norm
    embedding = critic.embed(make_state(masked=(1,)))
    actions = _actions(3)
    atoms = critic.atoms(embedding, actions)
    assert atoms.shape == (6, 3, 2, 6)
    for a in range(3):
        for head in range(2):
            plain = _plain(critic, embedding, actions[:, a], head)
            torch.testing.assert_close(atoms[:, a, head], plain, rtol=1e-4, atol=1e-5)


def test_many_actions_at_once_equal_one_by_one(make_state: MakeState, make_networks: MakeNetworks) -> None:
    critic = make_networks(scatter=True).critic
    embedding, actions = critic.embed(make_state()), _actions(7)
    together = critic.atoms(embedding, actions)
    single = torch.cat([critic.atoms(embedding, actions[:, a : a + 1]) for a in range(7)], 1)
    torch.testing.assert_close(together, single, rtol=1e-5, atol=1e-6)


def test_embedding_by_hand(make_state: MakeState, make_networks: MakeNetworks) -> None:
    """Untradable names are left out of the pooled market; LayerNorm comes after pooling."""
    critic, state = make_networks(scatter=True).critic, make_state(masked=(1, 2))
    embedding = critic.embed(state)
    hidden = torch.relu(critic.local(state.assets) + critic.market(state.market)[:, None])
    assets = critic.encode(hidden)
    torch.testing.assert_close(embedding.assets, assets)
    free = state.tradable[..., None].float()
    pooled = (assets * free).sum(1) / free.sum(1)
    torch.testing.assert_close(embedding.context, critic.state_norm(torch.cat([pooled, state.market], -1)))


def test_heads_are_normalised(make_state: MakeState, make_networks: MakeNetworks) -> None:
    """What goes into a LayerNorm may be scaled at will; without one the atoms would scale along."""
    critic = make_networks(scatter=True).critic
    embedding, actions = critic.embed(make_state()), _actions(2)
    before, value = critic.atoms(embedding, actions), critic.value(embedding)
    with torch.no_grad():
        critic.from_state.weight.mul_(50)
        critic.from_state.bias.mul_(50)
        critic.from_action.mul_(50)
        critic.value_head[0].weight.mul_(50)
        critic.value_head[0].bias.mul_(50)
    torch.testing.assert_close(critic.atoms(embedding, actions), before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(critic.value(embedding), value, rtol=1e-3, atol=1e-3)


def test_twins_start_apart(make_state: MakeState, make_networks: MakeNetworks) -> None:
    atoms = make_networks().critic.atoms(make_networks().critic.embed(make_state()), _actions(1))
    assert (atoms[:, 0, 0] - atoms[:, 0, 1]).abs().mean() > 0.01


def test_order_and_number_of_names_do_not_matter(make_state: MakeState, make_networks: MakeNetworks) -> None:
    critic, state, actions = make_networks(scatter=True).critic, make_state(masked=(1,)), _actions(3)
    order = torch.tensor([2, 0, 3, 1, 4])
    shuffled = state._replace(
        assets=state.assets[:, order], drifted=state.drifted[:, order], tradable=state.tradable[:, order]
    )
    before, after = critic.embed(state), critic.embed(shuffled)
    torch.testing.assert_close(critic.value(after), critic.value(before), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        critic.atoms(after, actions[..., order]), critic.atoms(before, actions), rtol=1e-4, atol=1e-5
    )
    for n in (2, 40):
        assert critic.atoms(critic.embed(make_state(n=n)), _actions(3, n)).shape == (6, 3, 2, 6)


def test_value_depends_on_what_is_held_and_atoms_on_what_is_traded(
    make_state: MakeState, make_networks: MakeNetworks
) -> None:
    critic = make_networks(scatter=True).critic
    embedding, actions = critic.embed(make_state()), _actions(1)
    other = embedding._replace(drifted=embedding.drifted.roll(1, 0))
    assert not torch.allclose(critic.value(other), critic.value(embedding))
    assert not torch.allclose(critic.atoms(other, actions), critic.atoms(embedding, actions))


def test_every_parameter_learns(make_state: MakeState, make_networks: MakeNetworks) -> None:
    critic = make_networks().critic
    embedding = critic.embed(make_state())
    (critic.atoms(embedding, _actions(2)).square().sum() + critic.value(embedding).square().sum()).backward()
    for name, parameter in critic.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_values_are_the_means_of_the_atoms_and_gradients_agree(
    make_state: MakeState, make_networks: MakeNetworks
) -> None:
    critic, state, actions = make_networks(scatter=True).critic, make_state(), _actions(3)
    torch.testing.assert_close(critic.value_of(state), critic.value(critic.embed(state)), rtol=0, atol=0)
    gradients: list[Tensor] = []
    for ask in (critic.values, lambda *asked: critic.atoms(*asked).mean(-1)):
        found = ask(critic.embed(state), actions)
        assert found.shape == (6, 3, 2)
        critic.zero_grad()
        found.square().sum().backward()
        gradients += [found.detach(), critic.out.grad.clone(), critic.out_bias.grad.clone(), critic.local.weight.grad]
    for one, other in zip(gradients[:4], gradients[4:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
