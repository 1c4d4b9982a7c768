"""The market as tensors on one device, and the exact world model of a trader who does not move prices.

Returns do not depend on the weights held, so reward and next state of *any* action are known: transitions are
stored as (t, weights) and everything else is recomputed here, by the ledger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.data.market import TRADABLE, Market
from finflow.envs.ledger import Accounting, book, execute
from finflow.envs.reward import RUIN, RewardModel

PATH_SCALARS = ("own_drawdown", "decision_day")
"""Appended to the market features: what the reward and the ledger need beyond the market itself."""


class State(NamedTuple):
    """What a policy sees, B rows.

    row [B]; assets [B, n, F + 2] (features, w-, cash flag); market [B, M + 2]; drifted [B, n] float64 (w-);
    drawdown [B] float64; tradable [B, n] bool, cash included; decide [B] bool; priors [B, K, n].
    """

    row: Tensor
    assets: Tensor
    market: Tensor
    drifted: Tensor
    drawdown: Tensor
    tradable: Tensor
    decide: Tensor
    priors: Tensor


class View(NamedTuple):
    """Observation of the market at rows [...]: a state without the portfolio.

    row [...]; features [..., n, F + 1], the last a cash flag; market [..., M]; tradable [..., n]; decide [...];
    priors [..., K, n].
    """

    row: Tensor
    features: Tensor
    market: Tensor
    tradable: Tensor
    decide: Tensor
    priors: Tensor


def joined(view: View, drifted: Tensor, drawdown: Tensor) -> State:
    """State of B rows, holding `drifted` [B, n] float64, with own log drawdown [B] float64."""
    scalars = torch.stack([10.0 * drawdown.float(), view.decide.float()], -1)
    assets = torch.cat([view.features[..., :-1], drifted.float()[..., None], view.features[..., -1:]], -1)
    market = torch.cat([view.market, scalars], -1)
    return State(view.row, assets, market, drifted, drawdown, view.tradable, view.decide, view.priors)


class StepOutcome(NamedTuple):
    """Result of an action: executed [B, n], reward [B], next drifted [B, n], next drawdown [B], ruined [B]; float64."""

    executed: Tensor
    reward: Tensor
    drifted: Tensor
    drawdown: Tensor
    ruined: Tensor


@dataclass(frozen=True)
class World:
    """One market on one device, with its accounting and reward.

    features [T, n, F + 1] (scaled; the last column flags cash), market [T, M] scaled, status [T, n], returns [T, n]
    float64, log_benchmark [T] float64 (ln(1 + its return)), decision [T] bool, priors [T, K, n].
    """

    features: Tensor
    market: Tensor
    status: Tensor
    returns: Tensor
    log_benchmark: Tensor
    decision: Tensor
    priors: Tensor
    accounting: Accounting
    reward: RewardModel

    @classmethod
    def of(
        cls,
        market: Market,
        scale: Callable[[Market], tuple[NDArray[np.float32], NDArray[np.float32]]],
        priors: NDArray[np.float64],
        accounting: Accounting,
        reward: RewardModel,
        device: torch.device,
    ) -> "World":
        """Move a market to `device`; `scale` gives its scaled features [T, d, F] and market features [T, M]."""
        features, market_features = scale(market)
        days, _, count = features.shape
        padded = np.zeros((days, market.n, count + 1), dtype=np.float32)
        padded[:, :-1, :-1] = features
        padded[:, -1, -1] = 1.0

        def put(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return cls(
            put(padded),
            put(market_features),
            put(market.status),
            put(market.returns),
            torch.log1p(put(market.benchmark)),
            put(market.decision),
            put(priors.astype(np.float32)),
            accounting,
            reward,
        )

    @property
    def device(self) -> torch.device:
        """Where every tensor of this world lives."""
        return self.features.device

    def observe(self, row: Tensor, drifted: Tensor, drawdown: Tensor) -> State:
        """State at the close of `row` [B], holding `drifted` [B, n] float64, with own log drawdown [B] float64."""
        return joined(self.look(row), drifted, drawdown)

    def look(self, row: Tensor, noise: float = 0.0, generator: torch.Generator | None = None) -> View:
        """Observation of the market at the close of `row` [...]; it does not depend on holdings.

        Parameters
        ----------
        noise : standard deviation of Gaussian noise on the features of assets and market.
        """
        features, market = self.features[row], self.market[row]
        if noise > 0:
            # Market features too: otherwise networks recognise each day by them and memorise its return.
            for part in (features[..., :-1, :-1], market):
                part += noise * torch.randn(part.shape, generator=generator, device=self.device)
        return View(row, features, market, self.status[row] == TRADABLE, self.decision[row], self.priors[row])

    def execute(self, target: Tensor, state: State) -> Tensor:
        """Executed weights [B, n] or, for target [B, A, n], [B, A, n]; float64, no gradient."""
        status, drifted, decide = self.status[state.row], state.drifted, state.decide
        if target.dim() == 3:
            shape = target.shape
            status, drifted = status[:, None].expand(shape), drifted[:, None].expand(shape)
            decide = decide[:, None].expand(shape[:2])
        return execute(target.detach().double(), drifted, status, decide, self.accounting)

    def straight_through(self, target: Tensor, state: State) -> Tensor:
        """Executed weights whose gradient is the target's own where a decision is taken, [B, n] float32."""
        passed = (target - target.detach()) * state.decide[:, None]
        return self.execute(target, state).float() + passed

    def live(self, target: Tensor, state: State, *, all_open: bool = False) -> StepOutcome:
        """Decide `target` [B, n] and book the day, with the exact gradient of both wherever they have one.

        A per-name cap, minimum cash and a turnover cap are piecewise linear: their gradient is exact. A trade within
        the no-trade band is not made, and its target gets no gradient; what crossing the band's edge would change is a
        jump, which no gradient sees (the one bias of value gradients through the ledger).

        Parameters
        ----------
        all_open : whether every name is tradable and every portfolio decides, which costs a third.
        """
        status, decide = (None, None) if all_open else (self.status[state.row], state.decide)
        return self.outcome(execute(target.double(), state.drifted, status, decide, self.accounting), state)

    def outcome(self, executed: Tensor, state: State) -> StepOutcome:
        """Book executed weights [B, n] from `state` over the day that follows."""
        following = state.row + 1
        booked = book(executed, state.drifted, self.returns[following], self.accounting.cost_rate)
        earned = booked.net, booked.turnover, self.log_benchmark[following], state.drawdown
        terms, drawdown = self.reward.components(*earned)
        reward = terms["active"] + terms["risk"] + terms["tail"] + terms["turnover"] + terms["drawdown"]
        return StepOutcome(executed, reward, booked.drifted, drawdown, booked.net <= RUIN - 1.0)
