from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from finflow.envs.simulator import State
from finflow.nn.actor import LOG_SIGMA, Actor
from finflow.nn.networks import Networks, ObservationSpec

MakeState = Callable[..., State]
MakeNetworks = Callable[..., Networks]
ONE_HOT = 1e4  # a gate score after which softmax gives exactly 1 and 0


def _choose(actor: Actor, expert: int) -> None:
    with torch.no_grad():
        actor.gate[2].bias.zero_()
        actor.gate[2].weight.zero_()
        actor.gate[2].bias[..., expert] = ONE_HOT


@pytest.mark.parametrize("expert", range(6))
@pytest.mark.parametrize("masked", [(), (1, 3)])
def test_zero_residual_and_one_hot_gate_give_the_prior(
    make_state: MakeState, make_networks: MakeNetworks, expert: int, masked: tuple[int, ...]
) -> None:
    state, actor = make_state(masked=masked), make_networks().actor
    _choose(actor, expert)
    n, free = 5, state.tradable.sum(-1, keepdim=True)
    expected = (state.priors[:, expert] + 1e-3 / n) * state.tradable / (1 + 1e-3 * free / n)
    decision = actor(state)
    assert decision.gate[0].tolist() == [float(k == expert) for k in range(6)]
    torch.testing.assert_close(decision.aim, expected, rtol=1e-6, atol=1e-7)
    assert (decision.aim[~state.tradable] == 0).all()


@pytest.mark.parametrize("masked", [(), (2,)])
def test_attribution_is_exact(make_state: MakeState, make_networks: MakeNetworks, masked: tuple[int, ...]) -> None:
    state, actor = make_state(masked=masked), make_networks(scatter=True).actor
    decision = actor(state)
    aim = sum(decision.gate[:, k, None] * decision.experts[:, k] for k in range(6))
    torch.testing.assert_close(decision.aim, aim)
    held = state.drifted.float() * state.tradable
    held = held / held.sum(-1, keepdim=True)
    parts = [decision.gate[:, k, None] * (decision.experts[:, k] - held) for k in range(6)]
    trade = decision.rate[:, None] * torch.stack(parts).sum(0)
    torch.testing.assert_close(decision.mean - held, trade, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(decision.mean.sum(-1), torch.ones(6))


def test_start_trades_slowly_with_a_uniform_gate(make_state: MakeState, make_networks: MakeNetworks) -> None:
    decision = make_networks().actor(make_state())
    torch.testing.assert_close(decision.rate, torch.full((6,), 0.1))
    torch.testing.assert_close(decision.gate, torch.full((6, 6), 1 / 6))
    torch.testing.assert_close(decision.log_sigma.exp(), torch.full((6, 4), 0.3))


def test_rate_of_zero_holds_and_of_one_jumps(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(), make_networks(scatter=True).actor
    with torch.no_grad():
        actor.rate[2].bias.fill_(-ONE_HOT)
        assert torch.equal(actor(state).mean, state.drifted.float() / state.drifted.float().sum(-1, keepdim=True))
        actor.rate[2].bias.fill_(ONE_HOT)
        decision = actor(state)
        torch.testing.assert_close(decision.mean, decision.aim)


def test_width_stays_within_its_bounds(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(), make_networks(scatter=True).actor
    for bias, bound in ((-ONE_HOT, LOG_SIGMA[0]), (ONE_HOT, LOG_SIGMA[1])):
        with torch.no_grad():
            actor.sigma.bias.fill_(bias)
        assert (actor(state).log_sigma == bound).all()


def test_tilt_is_bounded_to_a_factor_of_e_cubed(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(), make_networks(scatter=True).actor
    with torch.no_grad():
        actor.experts.out.mul_(1e4)
    start = torch.log(state.priors + 1e-3 / 5)
    tilt = torch.log(actor(state).experts) - start
    spread = tilt.amax(-1) - tilt.amin(-1)
    assert spread.max() <= 6.0 + 1e-4
    assert spread.max() > 5.9


@pytest.mark.parametrize("feature", range(7))
def test_experts_are_blind_outside_their_group(
    make_state: MakeState, make_networks: MakeNetworks, spec: ObservationSpec, feature: int
) -> None:
    """Bit for bit; the user's signal, the own weight and the cash flag are seen by all."""
    seers = {
        0: {"volatility", "defensive", "benchmark"},
        1: {"growth", "benchmark"},
        2: {"correlation", "defensive", "benchmark"},
        3: {"momentum", "growth", "benchmark"},
    }.get(feature, set(spec.experts))
    state, actor = make_state(), make_networks(scatter=True).actor
    assets = state.assets.clone()
    assets[..., feature] += 1.0 + torch.arange(5)
    before, after = actor(state).experts, actor(state._replace(assets=assets)).experts
    changed = {name for k, name in enumerate(spec.experts) if not torch.equal(before[:, k], after[:, k])}
    assert changed == seers


def test_experts_differ_pairwise(make_state: MakeState, make_networks: MakeNetworks) -> None:
    """By their priors from the start; by what they have learnt even where priors agree."""
    state = make_state()
    same = state._replace(priors=state.priors[:, :1].expand(-1, 6, -1))
    for experts in (make_networks().actor(state).experts, make_networks(scatter=True).actor(same).experts):
        for i in range(6):
            for j in range(i):
                assert (experts[:, i] - experts[:, j]).abs().sum(-1).mean() > 0.01


def test_dropped_experts_get_no_gate(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(), make_networks(scatter=True).actor
    keep = torch.ones(6, 6, dtype=torch.bool)
    keep[0, [1, 3]] = False
    full, dropped = actor(state).gate, actor(state, 1.0, keep).gate
    assert dropped[0, [1, 3]].tolist() == [0.0, 0.0]
    kept = full[0] * keep[0]
    torch.testing.assert_close(dropped[0], kept / kept.sum())
    torch.testing.assert_close(dropped[1:], full[1:])


def test_temperature_softens_the_gate(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(), make_networks(scatter=True).actor
    sharp, soft = actor(state, 1.0).gate, actor(state, 2.0).gate
    torch.testing.assert_close(soft, torch.softmax(actor.gate(state.market[None])[0] / 2, -1))
    assert -(soft * soft.log()).sum(-1).mean() > -(sharp * sharp.log()).sum(-1).mean()


def _shuffled(state: State, order: Tensor) -> State:
    return state._replace(
        assets=state.assets[:, order],
        drifted=state.drifted[:, order],
        tradable=state.tradable[:, order],
        priors=state.priors[..., order],
    )


def test_reordering_names_reorders_the_decision(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(masked=(1,)), make_networks(scatter=True).actor
    order = torch.tensor([2, 0, 3, 1, 4])
    before, after = actor(state), actor(_shuffled(state, order))
    for field in ("mean", "aim", "experts"):
        torch.testing.assert_close(getattr(after, field), getattr(before, field)[..., order], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(after.log_sigma, before.log_sigma[:, order[:-1]], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(after.rate, before.rate)


def test_one_actor_serves_any_number_of_assets(make_state: MakeState, make_networks: MakeNetworks) -> None:
    actor = make_networks(scatter=True).actor
    for n in (2, 5, 40):
        decision = actor(make_state(n=n))
        assert decision.mean.shape == (6, n)
        torch.testing.assert_close(decision.mean.sum(-1), torch.ones(6))
        assert torch.isfinite(decision.log_sigma).all()


def test_every_parameter_learns(make_state: MakeState, make_networks: MakeNetworks) -> None:
    actor = make_networks(scatter=True).actor
    decision = actor(make_state())
    ((decision.mean * torch.arange(5)).sum() + decision.log_sigma.sum()).backward()
    for name, parameter in actor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_works_while_training_only(make_state: MakeState, make_networks: MakeNetworks) -> None:
    state, actor = make_state(), make_networks(scatter=True, dropout=0.5).actor
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(actor(state).mean, actor(state).mean)
        actor.eval()
        assert torch.equal(actor(state).mean, actor(state).mean)
