"""The simulated market: many portfolios in parallel, and the exact world model. Both book through the ledger.

A trader does not move prices. Returns do not depend on the weights held, so reward and next state of *any* action are
known: transitions are stored as (t, weights) and everything else is recomputed by the `World`, with the ledger.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finflow.data.market import TRADABLE, Market
from finflow.envs.ledger import RUIN, Accounting, Booked, RewardModel, book, execute, next_drawdown

Array = NDArray[np.float64]

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

    def at(self, rows: Tensor | slice) -> "State":
        """Some of the B rows."""
        return State(*(part[rows] for part in self))


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

    def observe(self, row: Tensor | NDArray[np.int64], drifted: Tensor | Array, drawdown: Tensor | Array) -> State:
        """State at the close of `row` [B], holding `drifted` [B, n] float64, with own log drawdown [B] float64."""
        row, drifted, drawdown = (torch.as_tensor(part, device=self.device) for part in (row, drifted, drawdown))
        return joined(self.look(row), drifted, drawdown)

    def look(self, row: Tensor, noise: float = 0.0, generator: torch.Generator | None = None) -> View:
        """Observation of the market at the close of `row` [...]; it does not depend on holdings.

        `noise` is the standard deviation of Gaussian noise on the features of assets and market.
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
        jump, which no gradient sees (the one bias of value gradients through the ledger). Where every name is tradable
        and every portfolio decides (`all_open`), it costs a third.
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


_STATE = ("_rows", "_length", "_at", "drifted", "drawdown", "nav")


class Step(NamedTuple):
    """What one step did to E portfolios.

    row [E] day of the decision; executed, before [E, n] weights after and before it; booked: see `Booked`;
    drawdown_before [E]; reward [E] and its components (empty without a reward model); next_row [E];
    terminated [E] ruin; truncated [E] the episode's rows are used up (the state after it still has a value).
    Of episodes that had finished before, only `row`, `before` and `next_row` mean anything.
    """

    row: NDArray[np.int64]
    executed: Array
    before: Array
    booked: Booked
    drawdown_before: Array
    reward: Array
    components: dict[str, Array]
    next_row: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class Simulator:
    """E episodes side by side; an episode is a sequence of decision rows of the market.

    `row` [E] is the row at whose close the next decision is taken; after the last one, the row that follows it.
    Consecutive rows are a stretch of history, jumps make a block bootstrap: the decision at row t always earns
    the market's return of row t + 1, whatever row the episode goes on with.
    """

    def __init__(self, market: Market, accounting: Accounting, reward: RewardModel | None = None) -> None:
        self.market = market
        self.accounting = accounting
        self.reward = reward
        self._cash = np.eye(market.n)[-1]
        self._open = (market.status == TRADABLE).all(1) & market.decision
        # A decision at row t earns the return in row t + 1.
        self._returns = market.returns[1:]
        with np.errstate(divide="ignore"):  # a benchmark may lose everything
            self._log_benchmark = np.log1p(market.benchmark[1:])

    def reset(self, rows: NDArray[np.int64], drifted: Array | None = None) -> None:
        """Start E episodes.

        Parameters
        ----------
        rows : [E, L] decision rows, each below T - 1; shorter episodes are padded with -1.
        drifted : [E, n] weights held at the start; all in cash by default.
        """
        rows = np.pad(np.asarray(rows, dtype=np.int64), ((0, 0), (0, 1)), constant_values=-1)
        self._length = (rows >= 0).sum(1)
        self._at = np.zeros(len(rows), dtype=np.int64)
        last = np.take_along_axis(rows, np.maximum(self._length - 1, 0)[:, None], axis=1)
        self._lay(np.where(rows >= 0, rows, last + 1))
        self.drifted = np.empty((len(rows), self.market.n))
        self.drifted[:] = self._cash if drifted is None else drifted
        self.drawdown = np.zeros(len(rows))
        self.nav = np.ones(len(rows))
        self._arrive()

    def restart(self, slot: int, rows: NDArray[np.int64], drifted: Array | None = None) -> None:
        """Start another episode in `slot`; rows [l], drifted [n], all in cash by default."""
        self.restart_all([slot], rows[None], drifted)

    def restart_all(self, slots: list[int], rows: NDArray[np.int64], drifted: Array | None = None) -> None:
        """Start another episode in each of the slots; rows [slots, l], drifted [slots, n], all in cash by default."""
        days = rows.shape[1]
        missing = days + 1 - self._rows.shape[1]
        if missing > 0:
            self._rows = np.pad(self._rows, ((0, 0), (0, missing)))
        self._rows[slots, :days], self._rows[slots, days:] = rows, rows[:, -1:] + 1
        self._at[slots], self._length[slots] = 0, days
        # Copies, because the last step returned these arrays.
        self.drifted, self.drawdown, self.nav = self.drifted.copy(), self.drawdown.copy(), self.nav.copy()
        self.drifted[slots] = self._cash if drifted is None else drifted
        self.drawdown[slots], self.nav[slots] = 0.0, 1.0
        self._lay(self._rows)
        self._arrive()

    def _lay(self, rows: NDArray[np.int64]) -> None:
        """Take over the table of rows to come, [E, L + 1]; `_first` is where an episode begins in it, laid flat."""
        self._rows, self._first = rows, np.arange(len(rows)) * rows.shape[1]
        self._all_open = bool(self._open.take(rows).all())

    def _arrive(self) -> None:
        """Look up today's row of every episode; beyond its last one `_rows` holds the row that follows it.

        `active` [E] are the episodes that still have decisions to take.
        """
        self.row, self.active = self._rows.take(self._first + self._at), self._at < self._length

    def step(self, target: Array) -> Step:
        """Decide `target` [E, n] at the current rows, book the day, move on; finished episodes stand still."""
        market, row, before, active = self.market, self.row, self.drifted, self.active
        # float64, so that weights sum to 1; contiguous, so that sums run in the same order.
        target = np.ascontiguousarray(target, dtype=np.float64)
        everything = self._all_open or np.count_nonzero(self._open.take(row)) == len(row)
        status, decide = (None, None) if everything else (market.status.take(row, axis=0), market.decision.take(row))
        executed = execute(target, before, status, decide, self.accounting)
        # Clipped: an episode that has finished may stand on the last row.
        returns = self._returns.take(row, axis=0, mode="clip")
        booked = book(executed, before, returns, self.accounting.cost_rate)
        terms: dict[str, Array] = {}
        drawdown_before = self.drawdown
        if self.reward is None:
            reward, drawdown = np.zeros(len(row)), next_drawdown(drawdown_before, booked.net)
        else:
            log_benchmark = self._log_benchmark.take(row, mode="clip")
            terms, drawdown = self.reward.components(booked.net, booked.turnover, log_benchmark, drawdown_before)
            reward = terms["active"] + terms["risk"] + terms["tail"] + terms["turnover"] + terms["drawdown"]
        drifted, nav = booked.drifted, self.nav * (1.0 + booked.net)
        if np.count_nonzero(active) < len(row):
            drifted = np.where(active[:, None], drifted, before)
            nav, drawdown = np.where(active, nav, self.nav), np.where(active, drawdown, drawdown_before)
        self.drifted, self.nav, self.drawdown = drifted, nav, drawdown
        self._at = self._at + active
        ruined = booked.net <= RUIN - 1.0
        if np.count_nonzero(ruined):  # it ends the episode on the day it happens
            ruined &= active
            self._length = np.where(ruined, self._at, self._length)
            self._rows[ruined, self._at[ruined]] = row[ruined] + 1
        self._arrive()
        truncated = active ^ self.active ^ ruined  # it has just ended, and not by ruin
        return Step(row, executed, before, booked, drawdown_before, reward, terms, self.row, ruined, truncated)

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Where every episode stands, the rows still to come included."""
        return {name: getattr(self, name).copy() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Restore what `state_dict` gave, of as many episodes."""
        for name in _STATE:
            setattr(self, name, np.array(state[name]))
        self._lay(self._rows)
        self._arrive()
