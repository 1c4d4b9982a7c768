"""The unit of value is measured over portfolios that trade alike."""

from collections.abc import Callable

import torch

from finflow.agents.base import ACTIONS, TURNOVER, Batch, advantage_spread, equal_turnover, measure_scales
from finflow.envs.ledger import traded
from finflow.envs.simulator import World
from finflow.nn.networks import Networks


def test_all_portfolios_trade_the_same(world: World, make_batch: Callable[..., Batch]) -> None:
    """But for aims that lie closer than that: then the whole way."""
    state = make_batch(world, 64).state
    found = equal_turnover(world, state, torch.Generator().manual_seed(0))
    assert found.shape == (64, ACTIONS, 4)
    turnover = traded(found, state.drifted[:, None])
    assert float(turnover.max()) < TURNOVER + 1e-9
    assert float((turnover > TURNOVER - 1e-9).double().mean()) > 0.5
    torch.testing.assert_close(found.sum(-1), torch.ones(64, ACTIONS, dtype=torch.double))
    assert float(found.std(1).mean()) > 0.01  # they hold different names


def test_the_spread_is_that_of_the_scales(
    make_networks: Callable[..., Networks], world: World, make_batch: Callable[..., Batch]
) -> None:
    networks, state = make_networks(), make_batch(world).state
    spread = advantage_spread(networks, world, state, torch.Generator().manual_seed(0))
    scale, _ = measure_scales(networks, world, state, torch.Generator().manual_seed(0))
    torch.testing.assert_close(float(spread), scale, rtol=1e-4, atol=1e-7)
