"""Many portfolios stepped side by side through one market."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import Market
from finflow.envs.ledger import Accounting, Booked, book, execute
from finflow.envs.reward import RUIN, RewardModel, next_drawdown

Array = NDArray[np.float64]
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

    Consecutive rows are a stretch of history, jumps make a block bootstrap: the decision at row t always earns
    the market's return of row t + 1, whatever row the episode goes on with.
    """

    def __init__(self, market: Market, accounting: Accounting, reward: RewardModel | None = None) -> None:
        self.market = market
        self.accounting = accounting
        self.reward = reward

    def reset(self, rows: NDArray[np.int64], drifted: Array | None = None) -> None:
        """Start E episodes.

        Parameters
        ----------
        rows : [E, L] decision rows, each below T - 1; shorter episodes are padded with -1.
        drifted : [E, n] weights held at the start; all in cash by default.
        """
        self._rows = np.array(rows, dtype=np.int64)
        self._length = (self._rows >= 0).sum(1)
        self._at = np.zeros(len(rows), dtype=np.int64)
        if drifted is None:
            drifted = np.zeros((len(rows), self.market.n))
            drifted[:, -1] = 1.0
        self.drifted = np.array(drifted, dtype=np.float64)
        self.drawdown = np.zeros(len(rows))
        self.nav = np.ones(len(rows))

    def restart(self, slot: int, rows: NDArray[np.int64], drifted: Array | None = None) -> None:
        """Start another episode in `slot`; rows [l], drifted [n]."""
        missing = len(rows) - self._rows.shape[1]
        if missing > 0:
            self._rows = np.pad(self._rows, ((0, 0), (0, missing)), constant_values=-1)
        self._rows[slot] = -1
        self._rows[slot, : len(rows)] = rows
        self._length[slot], self._at[slot] = len(rows), 0
        self.drifted[slot] = 0.0
        self.drifted[slot, -1] = 1.0
        if drifted is not None:
            self.drifted[slot] = drifted
        self.drawdown[slot], self.nav[slot] = 0.0, 1.0

    @property
    def row(self) -> NDArray[np.int64]:
        """[E] row at whose close the next decision is taken; after the last one, the row that follows it."""
        last = np.maximum(self._length - 1, 0)
        slots = np.arange(len(self._at))
        row = self._rows[slots, np.minimum(self._at, last)]
        return np.maximum(np.where(self._at > last, row + 1, row), 0)

    @property
    def active(self) -> NDArray[np.bool_]:
        """[E] episodes that still have decisions to take."""
        return self._at < self._length

    def step(self, target: Array) -> Step:
        """Decide `target` [E, n] at the current rows, book the day, move on; finished episodes stand still."""
        market, row, before, active = self.market, self.row, self.drifted, self.active
        target = np.asarray(target, dtype=np.float64)  # weights in float32 would sum to 1 within 1e-7 only
        executed = execute(target, before, market.status[row], market.decision[row], self.accounting)
        following = np.minimum(row + 1, len(market.dates) - 1)
        booked = book(executed, before, market.returns[following], self.accounting.cost_rate)
        terms: dict[str, Array] = {}
        drawdown_before, reward = self.drawdown, np.zeros(len(row))
        self.drawdown = np.where(active, next_drawdown(drawdown_before, booked.net), drawdown_before)
        if self.reward is not None:
            terms, _ = self.reward.components(booked.net, booked.turnover, market.benchmark[following], drawdown_before)
            reward = terms["active"] + terms["tail"] + terms["turnover"] + terms["drawdown"]
        ruined = active & (booked.net <= RUIN - 1.0)
        self.drifted = np.where(active[:, None], booked.drifted, before)
        self.nav = np.where(active, self.nav * (1.0 + booked.net), self.nav)
        self._at = self._at + active
        self._length = np.where(ruined, self._at, self._length)  # ruin ends the episode on the day it happens
        done = self._at >= self._length
        return Step(
            row, executed, before, booked, drawdown_before, reward, terms, self.row, ruined, active & done & ~ruined
        )

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Where every episode stands, the rows still to come included."""
        return {name: getattr(self, name).copy() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Restore what `state_dict` gave, of as many episodes."""
        for name in _STATE:
            setattr(self, name, np.array(state[name]))
