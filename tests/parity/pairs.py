"""The same transitions and the same weights for d3rlpy and for FinFlow, and the comparison of gradients."""

import torch
from d3rlpy.torch_utility import TorchMiniBatch
from torch import Tensor, nn

from finflow.agents.base import Batch

STATE, ACTION, ROWS, HIDDEN, ATOMS = 7, 3, 64, 32, 32
GAMMA = 0.97
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def batches(reward_scale: float = 1.0, seed: int = 0) -> tuple[TorchMiniBatch, Batch]:
    """Random transitions, a fifth of them terminal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(width: int) -> Tensor:
        return torch.randn(ROWS, width, generator=generator)

    state, following = normal(STATE), normal(STATE)
    action, after = torch.tanh(normal(ACTION)), torch.tanh(normal(ACTION))
    reward, terminal = reward_scale * normal(1), (torch.rand(ROWS, 1, generator=generator) < 0.2).float()
    theirs = TorchMiniBatch(
        state, action, reward, following, after, torch.zeros(ROWS, 1), terminal, torch.ones(ROWS, 1), "cpu"
    )
    discount = (GAMMA * (1.0 - terminal)).squeeze(1)
    # FinFlow's `State` is a portfolio's; the losses hand it on to the critic unread.
    ours = Batch(state, action, reward.squeeze(1), discount, following, after, torch.zeros(ROWS, dtype=torch.bool))  # pyright: ignore[reportArgumentType]
    return theirs, ours


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def copy_layers(source: nn.Module, target: nn.Module) -> None:
    """Weights of every linear layer, in order."""
    pairs = list(zip(linears(source), linears(target), strict=True))
    assert pairs
    for theirs, ours in pairs:
        ours.load_state_dict(theirs.state_dict())


def assert_gradients(theirs: nn.Module, ours: nn.Module, ratio: float = 1.0) -> None:
    """The gradient of every linear layer is `ratio` times theirs."""
    for one, other in zip(linears(theirs), linears(ours), strict=True):
        assert one.weight.grad.abs().max() > 0
        for name in ("weight", "bias"):
            wanted, found = getattr(one, name).grad, getattr(other, name).grad
            torch.testing.assert_close(found, ratio * wanted, rtol=1e-4, atol=1e-6)
