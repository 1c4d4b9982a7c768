"""Several actors side by side are each what it would be alone; their average is one policy, its parts exact."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from finflow.envs.simulator import State
from finflow.nn.actor import averaged, dealt, repeated
from finflow.nn.networks import Networks, ObservationSpec, build_networks
from finflow.schema.sections import Network

MakeState = Callable[..., State]
ACTORS = 3


@pytest.fixture(params=["portfolio", "mlp"])
def make(request: pytest.FixtureRequest, spec: ObservationSpec) -> Callable[..., Networks]:
    def build(actors: int = ACTORS, seed: int = 0) -> Networks:
        shape = Network(
            kind=request.param, actors=actors, embed_dim=8, hidden_dim=16, n_quantiles=6, dropout=0.0, state_noise=0.0,
            layer_norm=True,
        )  # fmt: skip
        known = replace(spec, assets=tuple("ABCDE") if request.param == "mlp" else ())
        networks, g = build_networks(known, shape, seed, torch.device("cpu")), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in networks.actor.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
        return networks

    return build


def test_each_actor_decides_as_it_would_alone(make: Callable[..., Networks], make_state: MakeState) -> None:
    together, state = make().actor, make_state(6, masked=(1,))
    found = together.members(state)
    for place in range(ACTORS):
        alone = make(1).actor
        alone.load_state_dict({name: part[place : place + 1] for name, part in together.state_dict().items()})
        rows = slice(2 * place, 2 * place + 2)
        expected = alone(State(*(part[rows] for part in state)))
        for field in expected._fields:
            torch.testing.assert_close(getattr(found, field)[rows], getattr(expected, field), rtol=1e-5, atol=1e-6)


def test_actors_start_apart(make: Callable[..., Networks], make_state: MakeState) -> None:
    state = make_state(1)
    means = make().actor.members(repeated(state, ACTORS)).mean
    assert all((means[i] - means[j]).abs().max() > 1e-3 for i in range(ACTORS) for j in range(i))


def test_no_actor_learns_from_anothers_rows(make: Callable[..., Networks], make_state: MakeState) -> None:
    actor = make().actor
    decision = actor.members(make_state(6))
    (decision.mean[:2] * torch.arange(5)).sum().backward()
    for name, parameter in actor.named_parameters():
        if parameter.grad is not None:
            assert (parameter.grad[1:] == 0).all(), name


def test_the_average_is_the_mean_of_the_means_and_its_parts_are_exact(
    make: Callable[..., Networks], make_state: MakeState
) -> None:
    """mean = (1 - r) w- + r sum_k g_k e_k, as for one actor: cards and sleeves need nothing else."""
    actor, state = make().actor, make_state(6, masked=(2,))
    each = actor.members(repeated(state, ACTORS))
    whole = actor(state)
    torch.testing.assert_close(whole.mean, each.mean.view(ACTORS, 6, 5).mean(0))
    torch.testing.assert_close(whole.gate.sum(-1), torch.ones(6))
    torch.testing.assert_close(whole.experts.sum(-1), torch.ones_like(whole.gate))
    assert (whole.experts >= 0).all()
    aim = torch.einsum("bk,bkn->bn", whole.gate, whole.experts)
    held = state.drifted.float() * state.tradable
    held = held / held.sum(-1, keepdim=True)
    torch.testing.assert_close(whole.aim, aim)
    torch.testing.assert_close(whole.mean, torch.lerp(held, aim, whole.rate[:, None]), rtol=1e-5, atol=1e-6)
    assert averaged(each, ACTORS).tradable.shape == (6, 5)


def test_an_expert_left_out_has_no_part_in_the_average(make: Callable[..., Networks], make_state: MakeState) -> None:
    keep = torch.ones(6, 6, dtype=torch.bool)
    keep[:, 4] = False
    whole = make().actor(make_state(6), keep=keep)
    assert (whole.gate[:, 4] == 0).all()
    torch.testing.assert_close(whole.gate.sum(-1), torch.ones(6))
    torch.testing.assert_close(whole.experts.sum(-1), torch.ones(6, 6))


@pytest.mark.parametrize("kappa", [0.0, 0.4])
def test_confidence_shrinks_the_tilt_towards_the_benchmark(
    make: Callable[..., Networks], make_state: MakeState, kappa: float
) -> None:
    """w = e + kappa (w_pi - e), and with 0 the benchmark's portfolio itself."""
    actor, state = make().actor, make_state(6, masked=(2,))
    whole = actor.members(state)
    actor.confidence = kappa
    shrunk = actor.members(state)
    torch.testing.assert_close(shrunk.aim, torch.lerp(state.priors[:, -1], whole.aim, kappa))
    torch.testing.assert_close(shrunk.gate, whole.gate)
    if kappa == 0.0:
        torch.testing.assert_close(actor(state).aim, state.priors[:, -1])


def test_rows_are_dealt_evenly(make_state: MakeState) -> None:
    assert len(dealt(make_state(8), 3).row) == 6
    assert torch.equal(dealt(make_state(8), 3).row, torch.arange(6))
