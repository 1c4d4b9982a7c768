from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from finflow.agents.base import Scales
from finflow.artifacts.checkpoints import read_policy, to_metadata, to_tensors
from finflow.data.features import FeatureScaling
from finflow.envs.simulator import State
from finflow.io.weights import load_weights, save_weights
from finflow.nn.networks import Networks, ObservationSpec
from tests.shapes import small_network

MakeState = Callable[..., State]
MakeNetworks = Callable[..., Networks]


def _outputs(networks: Networks, state: State) -> list[Tensor]:
    """All that phase 2 takes over: policy, gate, both critics, both targets, value."""
    actions = state.priors
    networks.actor.eval()
    decision = networks.actor(state)
    outputs: list[Tensor] = [decision.mean, decision.gate, decision.experts, decision.rate, decision.log_sigma]
    for critic in (networks.critic, networks.target):
        embedding = critic.embed(state)
        outputs += [critic.atoms(embedding, actions), critic.value(embedding)]
    return outputs


def test_polyak_in_closed_form(make_networks: MakeNetworks) -> None:
    networks, tau, steps = make_networks(), 0.05, 7
    start = {name: p.clone() for name, p in networks.target.named_parameters()}
    with torch.no_grad():
        for parameter in networks.critic.parameters():
            parameter.add_(1.0)
    for _ in range(steps):
        networks.polyak(tau)
    for name, critic in networks.critic.named_parameters():
        expected = critic + (1 - tau) ** steps * (start[name] - critic)
        torch.testing.assert_close(dict(networks.target.named_parameters())[name], expected.detach())
    networks.polyak(1.0)
    for online, target in zip(networks.critic.parameters(), networks.target.parameters(), strict=True):
        assert torch.equal(online, target)


def test_target_starts_as_the_critic_and_never_learns(make_networks: MakeNetworks, make_state: MakeState) -> None:
    networks, state = make_networks(), make_state()
    for online, target in zip(networks.critic.parameters(), networks.target.parameters(), strict=True):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()
        assert not target.requires_grad
    embedding = networks.target.embed(state)
    assert not networks.target.atoms(embedding, state.priors).requires_grad


def test_transfer_is_exact(make_networks: MakeNetworks, make_state: MakeState) -> None:
    state, parent, child = make_state(masked=(1,)), make_networks(0, scatter=True), make_networks(1)
    wanted = _outputs(parent, state)
    assert not any(torch.equal(a, b) for a, b in zip(_outputs(child, state), wanted, strict=True))
    child.load_state_dict(parent.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(_outputs(child, state), wanted, strict=True))


def test_transfer_through_a_file_is_exact(
    make_networks: MakeNetworks, make_state: MakeState, spec: ObservationSpec, tmp_path: Path
) -> None:
    state, parent = make_state(masked=(1,)), make_networks(0, scatter=True)
    scaling = FeatureScaling(*(np.arange(3.0) + k for k in range(4)))
    reward = {
        "scale": 200.0,
        "tail_threshold": 0.02,
        "lambda_cvar": 5.0,
        "lambda_turn": 0.1,
        "lambda_dd": 0.0,
        "lambda_risk": 0.3,
    }
    shape = small_network()
    path = tmp_path / "weights.safetensors"
    metadata = to_metadata(spec, shape, {"reward": reward}, Scales(0.3, 7.0), {"kappa": 0.25})
    sha256 = save_weights(path, to_tensors(parent.state_dict(), scaling), metadata)
    stored = read_policy(*load_weights(path, sha256))
    child = stored.build(torch.device("cpu"))
    assert child.actor.confidence == 0.25
    child.actor.confidence = 1.0
    assert all(torch.equal(a, b) for a, b in zip(_outputs(child, state), _outputs(parent, state), strict=True))
    assert stored.spec == spec
    assert stored.scales == (0.3, 7.0)
    assert stored.reward.to_dict() == reward
    assert np.array_equal(stored.scaling.market_std, scaling.market_std)


def test_weights_that_do_not_fit_are_refused(make_networks: MakeNetworks) -> None:
    parent = make_networks().state_dict()
    parent.pop("critic.out")
    with pytest.raises(RuntimeError, match=r"critic\.out"):
        make_networks(1).load_state_dict(parent, strict=True)


def test_seed_alone_decides_the_start(make_networks: MakeNetworks) -> None:
    before = torch.random.get_rng_state()
    first, second, other = make_networks(3), make_networks(3), make_networks(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.critic.out, other.critic.out)


def test_every_expert_has_inputs_of_its_own(spec: ObservationSpec) -> None:
    seen = spec.expert_inputs()
    assert seen.dtype == torch.bool
    assert seen.shape == (6, 7)
    assert dict(zip(spec.experts, seen.int().tolist(), strict=True)) == {
        "volatility": [1, 0, 0, 0, 1, 1, 1],
        "correlation": [0, 0, 1, 0, 1, 1, 1],
        "momentum": [0, 0, 0, 1, 1, 1, 1],
        "defensive": [1, 0, 1, 0, 1, 1, 1],
        "growth": [0, 1, 0, 1, 1, 1, 1],
        "benchmark": [1, 1, 1, 1, 1, 1, 1],
    }


def test_spec_survives_json(spec: ObservationSpec) -> None:
    assert ObservationSpec(**{key: tuple(value) for key, value in spec.to_dict().items()}) == spec
