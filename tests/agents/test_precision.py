"""Mixed precision and gradient checkpointing: what they change, and what they must not."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from finflow.agents.base import Batch, Descent, OfflineCoefficients, OnlineCoefficients, Scales
from finflow.agents.bcell import BCell
from finflow.agents.iql import IQL
from finflow.config.compose import load
from finflow.envs.simulator import World
from finflow.errors import ConfigError
from finflow.losses import quantile_loss
from finflow.nn.actor import Computing
from finflow.schema.sections import Network
from finflow.stages.prepare import compiled, computing_of, use_hardware

Agent = IQL | BCell
FP32, BF16 = Computing(), Computing(half=torch.bfloat16)
KINDS = [(name, kind) for name in ("iql", "bcell") for kind in ("portfolio", "mlp")]


@pytest.fixture(params=KINDS, ids="-".join)
def make(
    request: pytest.FixtureRequest, iql_config: Any, make_iql: Callable[..., IQL], make_bcell: Callable[..., BCell]
) -> Callable[..., Agent]:
    name, kind = request.param
    network: Network = iql_config.network.model_copy(update={"kind": kind, "hidden_dim": 32, "dropout": 0.1})

    def build(computing: Computing) -> Agent:
        agent = make_iql(0, network=network) if name == "iql" else make_bcell(0, network=network)
        if isinstance(agent, BCell):
            agent.scales = Scales(0.5, 5.0)
        agent.networks.compute_as(computing)
        torch.manual_seed(0)
        return agent

    return build


@pytest.fixture
def batch(make_batch: Callable[..., Batch], world: World) -> Batch:
    return make_batch(world, 256)


@pytest.fixture
def update(coefficients: OnlineCoefficients) -> Callable[[Agent, Batch], dict[str, Tensor]]:
    def run(agent: Agent, batch: Batch) -> dict[str, Tensor]:
        if isinstance(agent, IQL):
            return agent.update(batch, OfflineCoefficients())
        return agent.update(batch, coefficients)

    return run


def _gradients(agent: Agent) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in agent.networks.named_parameters():
        if parameter.grad is not None:
            yield name, parameter.grad


def _kept_bytes(work: Callable[[], Any]) -> int:
    """Bytes of distinct tensors that autograd keeps for the backward pass of `work`, outside checkpoints."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(kept.values())


def test_checkpointing_keeps_the_gradients_dropout_included(
    make: Callable[..., Agent], batch: Batch, update: Callable[..., Any]
) -> None:
    plain, frugal = make(FP32), make(Computing(recompute=True))
    torch.manual_seed(0)
    wanted = update(plain, batch)
    torch.manual_seed(0)
    found = update(frugal, batch)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    gradients = dict(_gradients(frugal))
    assert len(gradients) > 10
    for name, gradient in _gradients(plain):
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=1e-6)


def test_checkpointing_keeps_less_for_the_backward_pass(
    make: Callable[..., Agent], batch: Batch, update: Callable[..., Any]
) -> None:
    kept = [_kept_bytes(partial(update, make(computing), batch)) for computing in (FP32, Computing(recompute=True))]
    assert kept[1] < 0.7 * kept[0]


def test_bf16_losses_are_near_those_of_fp32_and_weights_stay_fp32(
    make: Callable[..., Agent], batch: Batch, update: Callable[..., Any]
) -> None:
    full, half = make(FP32), make(BF16)
    torch.manual_seed(0)
    wanted = update(full, batch)
    torch.manual_seed(0)
    found = update(half, batch)
    for name in {"v_loss", "q_loss", "policy_loss", "critic_loss", "actor_loss"} & set(wanted):
        assert found[name].dtype is torch.float32
        assert found[name] != wanted[name], name  # else nothing was multiplied in bf16
        torch.testing.assert_close(found[name], wanted[name], rtol=0.02, atol=0.02)
    for _ in range(5):
        update(half, batch)
    assert {p.dtype for p in half.networks.parameters()} == {torch.float32}
    assert {gradient.dtype for _, gradient in _gradients(half)} == {torch.float32}
    optimiser = half.optimiser if isinstance(half, IQL) else half.critic_optimiser
    assert {s["exp_avg"].dtype for s in optimiser.state.values()} == {torch.float32}
    assert half.networks.unsound() is None


def test_losses_are_fp32_whatever_the_networks_multiply_in(
    make: Callable[..., Agent], batch: Batch, update: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[torch.dtype, bool]] = set()

    def spy(atoms: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        seen.update({(atoms.dtype, torch.is_autocast_enabled("cpu")), (target.dtype, False)})
        return quantile_loss(atoms, target, scale)

    for module in ("iql", "bcell"):
        monkeypatch.setattr(f"finflow.agents.{module}.quantile_loss", spy)
    update(make(BF16), batch)
    assert seen == {(torch.float32, False)}


def test_a_policy_in_bf16_is_a_portfolio_in_fp32(make: Callable[..., Agent], batch: Batch) -> None:
    decision = make(BF16).networks.actor(batch.state)
    assert {part.dtype for part in decision if part.dtype is not torch.bool} == {torch.float32}
    torch.testing.assert_close(decision.mean.sum(-1), torch.ones(len(batch.reward)), rtol=0, atol=1e-6)


def test_scaled_gradients_give_the_step_of_plain_ones_and_an_overflow_is_left_out(
    make_iql: Callable[..., IQL], batch: Batch
) -> None:
    """The scaler works on the CPU too; products in float16 do not, so that here only the scale differs."""
    plain, scaled = make_iql(0), make_iql(0)
    assert plain.descent.state_dict() == {"scaler": {}}
    scaled.networks.computing = Computing(half=torch.float16)  # of the container alone: its parts stay fp32
    scaled.descent = Descent(scaled.networks)
    for _ in range(3):
        wanted = plain.update(batch, OfflineCoefficients())
        found = scaled.update(batch, OfflineCoefficients())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    scaler = scaled.descent.scaler
    assert scaler is not None
    before, scale = scaled.networks.critic.out.clone(), scaler.get_scale()
    assert scale == 65536.0
    state = scaled.descent.state_dict()
    scaled.update(batch._replace(reward=torch.full_like(batch.reward, torch.nan)), OfflineCoefficients())
    assert torch.equal(scaled.networks.critic.out, before)
    assert scaler.get_scale() == scale / 2
    scaled.descent.load_state_dict(state)
    assert scaler.get_scale() == scale


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["hardware=gpu"], "hardware.device=cuda: torch finds no CUDA device"),
        (["hardware.precision=fp16"], "hardware.precision=fp16: for CUDA devices alone"),
        (["hardware=cpu", "hardware.precision=fp16"], "hardware.precision=fp16: for CUDA devices alone"),
    ],
)
def test_hardware_that_is_not_there_is_refused(changes: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=said) as refused:
        use_hardware(load("pretrain", changes).hardware)
    assert "\n" not in str(refused.value)


def test_options_of_hardware_say_how_networks_compute() -> None:
    def computing(*changes: str) -> Computing:
        return computing_of(load("finetune", list(changes)).hardware)

    assert computing() == computing("hardware=cpu") == FP32
    assert computing("hardware=gpu") == BF16
    assert computing("hardware=low_memory") == Computing(recompute=True)
    assert computing("hardware.precision=fp16").half is torch.float16


def test_an_update_is_compiled_in_the_mode_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, mode: (function, mode))
    for stage in ("pretrain", "finetune"):
        assert compiled(print, load(stage, []).hardware) is print
        assert compiled(print, load(stage, ["hardware.compile=default"]).hardware) == (print, "default")
        assert compiled(print, load(stage, ["hardware=gpu"]).hardware) == (print, "reduce-overhead")


@pytest.mark.slow
def test_a_compiled_update_learns_the_same(
    make: Callable[..., Agent], batch: Batch, update: Callable[..., Any]
) -> None:
    """Traced as `compiled` has it, without the C++ compiler, which takes a minute."""
    plain, fast = make(FP32), make(FP32)
    fast.update = torch.compile(fast.update, backend="eager")
    for _ in range(2):
        torch.manual_seed(0)
        wanted = update(plain, batch)
        torch.manual_seed(0)
        found = update(fast, batch)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
