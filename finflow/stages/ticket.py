"""An order ticket: trades in whole lots from holdings to the target, with costs and the cash left over."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finflow.data.csv_table import number, text_rows
from finflow.data.market import CASH
from finflow.errors import DataError
from finflow.evaluation.result import Floats

UNITS = ("shares", "weight")
MOST = 1e15  # shares, or an amount of money; a larger one is a typing error


@dataclass(frozen=True)
class Holdings:
    """What is held: weights [n], cash last; `value` in money, None where weights were given."""

    weights: Floats
    value: float | None


@dataclass(frozen=True)
class Order:
    """One trade; a positive one buys.

    shares, price, notional, cost are None where no capital is known; before, after : weights of net asset value.
    """

    asset: str
    before: float
    after: float
    price: float | None
    shares: float | None
    notional: float | None
    cost: float | None


@dataclass(frozen=True)
class Ticket:
    """Orders, largest first.

    turnover : two-way, a fraction of net asset value. capital, cost, cash : in money, None where no capital is known;
    cash is what is left over after all orders. cash_weight : the same as a fraction.
    """

    orders: tuple[Order, ...]
    turnover: float
    capital: float | None
    cost: float | None
    cash: float | None
    cash_weight: float


def read_holdings(path: Path, assets: Sequence[str], prices: Floats) -> Holdings:
    """What a user holds, from a CSV `ticker,shares` or `ticker,weight` with a row CASH (its amount, or its weight).

    Parameters
    ----------
    assets : n names, cash last; a name without a row is not held.
    prices : [n - 1] newest closes.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`.
    """
    unit, amounts = UNITS[0], dict[str, float]()
    for line, cells in text_rows(path):
        row = [cell.strip() for cell in cells]
        if line == 1:
            header = [cell.lower() for cell in row]
            if header not in [["ticker", unit] for unit in UNITS]:
                raise DataError(f"{path}:1:1: the header is {','.join(row)}; write ticker,shares or ticker,weight")
            unit = header[1]
            continue
        if len(row) != 2:
            raise DataError(f"{path}:{line}:1: {len(row)} cells; write a ticker and its {unit}")
        name = CASH if row[0].upper() == CASH else row[0]
        if name not in assets:
            raise DataError(f"{path}:{line}:ticker: {row[0]!r} is no name of the run; delete the row")
        if name in amounts:
            raise DataError(f"{path}:{line}:ticker: {name} stands twice; keep one row")
        amounts[name] = number(f"{path}:{line}:{unit}", row[1], remedy="correct it")
        if not 0 <= amounts[name] <= MOST:
            raise DataError(f"{path}:{line}:{unit}: {row[1]!r} is no number from 0 to {MOST:g}; correct it")
    held = np.array([amounts.get(name, 0.0) for name in assets])
    if unit == "weight":
        if abs(held.sum() - 1.0) > 1e-3:
            raise DataError(f"{path}: the weights sum to {held.sum():.4g}; make it 1, with a row {CASH} for the rest")
        return Holdings(held / held.sum(), None)
    unpriced = [name for name, price in zip(assets, prices, strict=False) if amounts.get(name) and not price > 0]
    if unpriced:
        raise DataError(f"{path}: no price for {', '.join(unpriced)} on the newest day; set env.end to a day with one")
    worth = held * np.append(np.nan_to_num(prices), 1.0)
    if worth.sum() <= 0:
        raise DataError(f"{path}: nothing is held; give shares, or a row {CASH} with its amount")
    return Holdings(worth / worth.sum(), float(worth.sum()))


def ticket(
    assets: Sequence[str],
    prices: Floats,
    before: Floats,
    target: Floats,
    *,
    capital: float | None,
    cost_rate: float,
    min_trade: float,
    lot: float,
) -> Ticket:
    """Orders that lead from weights `before` [n] to `target` [n], cash last.

    Trades below `min_trade` of net asset value are left out. With a capital shares are rounded towards 0 to whole
    lots, and purchases are made smaller together where cash would not pay for them and all costs.

    Parameters
    ----------
    prices : [n - 1] newest closes; a name without one is not traded.
    cost_rate : cost of a trade as a fraction of its notional.
    """
    change = target[:-1] - before[:-1]
    change = _large(np.where(prices > 0, change, 0.0), min_trade)
    change = _large(_paid_for(change, before[-1], cost_rate), min_trade)
    if capital is None:
        after = before[:-1] + change
        turnover = float(np.abs(change).sum())
        cash = float(before[-1] - change.sum() - cost_rate * turnover)
        moved = np.flatnonzero(change).tolist()
        orders = [Order(assets[k], float(before[k]), float(after[k]), None, None, None, None) for k in moved]
        return Ticket(_largest_first(orders), turnover, None, None, None, cash)
    worth = np.nan_to_num(prices)
    least = min_trade * capital
    money = _large(_lots(change * capital, prices, lot) * worth, least)
    # Sales in whole lots bring less than was meant.
    shares = _lots(_paid_for(money, before[-1] * capital, cost_rate), prices, lot)
    shares = np.where(_large(shares * worth, least) == 0, 0.0, shares)
    money = shares * worth
    costs = cost_rate * np.abs(money)
    left = capital - float(costs.sum())
    after = (before[:-1] * capital + money) / left
    orders = [
        Order(
            assets[k], float(before[k]), float(after[k]), float(prices[k]), float(shares[k]), float(money[k]),
            float(costs[k]),
        )
        for k in np.flatnonzero(shares).tolist()
    ]  # fmt: skip
    cash = before[-1] * capital - float(money.sum()) - float(costs.sum())
    turnover = float(np.abs(money).sum()) / capital
    return Ticket(_largest_first(orders), turnover, capital, float(costs.sum()), cash, cash / left)


def _large(trades: Floats, least: float) -> Floats:
    """Trades without those below `least`; one that is as large may be a rounding of floats short of it."""
    return np.where(np.abs(trades) >= least * (1.0 - 1e-9), trades, 0.0)


def _paid_for(change: Floats, cash: float, cost_rate: float) -> Floats:
    """Trades, of which purchases are made smaller together where cash and sales do not pay for them and all costs."""
    bought, sold = change.clip(min=0).sum(), -change.clip(max=0).sum()
    means = max(cash + sold * (1.0 - cost_rate), 0.0)
    if bought * (1.0 + cost_rate) <= means:
        return change
    return np.where(change > 0, change * (means / (bought * (1.0 + cost_rate))), change)


def _lots(money: Floats, prices: Floats, lot: float) -> Floats:
    """Shares that so much money is worth, rounded towards 0 to whole lots; rounding errors of floats cost no lot."""
    with np.errstate(divide="ignore", invalid="ignore"):
        lots = money / prices / lot
    lots = np.trunc(lots + np.copysign(1e-9, lots) * np.maximum(1.0, np.abs(lots)))
    return np.where(prices > 0, lots * lot, 0.0) + 0.0  # no -0


def _largest_first(orders: list[Order]) -> tuple[Order, ...]:
    return tuple(sorted(orders, key=lambda order: -abs(order.after - order.before)))
