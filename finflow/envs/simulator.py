"""Many portfolios stepped in parallel through one market."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finflow.data.market import TRADABLE, Market
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
