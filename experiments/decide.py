"""Target weights and trades for the latest date in the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import entry
import judged
import tables
from finflow.schema import Config

if TYPE_CHECKING:
    from finflow.stages.results import Trade
    from finflow.stages.ticket import Ticket

judged.register()
EXAMPLES = {
    "run=DIR": "a fine-tuning run (default: the newest finished one)",
    "holdings=FILE": "a CSV ticker,shares or ticker,weight of what is held, with a row CASH",
    "capital=100000": "money to invest, or what holdings in weights are worth",
    "min_trade=0.005 lot=100": "smallest trade that is ordered, a fraction of net asset value; shares traded together",
    "env.end=2024-12-30": "last day of the data to use, where the newest row is not complete",
    "output_root=DIR": "where runs are looked for and written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Decide, and write the trades to `folder`."""
    from finflow.pipeline import decide

    result = decide(config, folder)
    print(f"Run followed: {entry.shown(result.run)}")
    if result.confidence:
        print(f"Confidence: {result.confidence}")
    tables.show_growth(result.new_days)
    if not result.decides:
        print(f"{result.date} is no decision day of env.rebalance: what is held stays as it is")
    if not result.owned:
        print("Neither holdings nor capital: a model portfolio is followed, bought at the start of the test window")
    print(result.verdict or f"Verdict: none yet, run {result.next_command}")
    show(f"Decision at the close of {result.date}, as fractions of net asset value", result.trades)
    show_ticket(result.ticket)
    print(f"Table: {entry.shown(result.table)}")
    print(f"Orders: {entry.shown(result.orders)}")
    return result


def show(title: str, trades: "Sequence[Trade]") -> None:
    """Print a row an asset; a positive trade buys."""
    from rich.console import Console
    from rich.table import Table

    table = Table("asset", "held", "target", "trade", "", title=title)
    for row in trades:
        table.add_row(row.asset, f"{row.held:.4f}", f"{row.target:.4f}", f"{row.trade:+z.4f}", row.note)
    Console(width=100).print(table)


def show_ticket(ticket: "Ticket") -> None:
    """Print an order a row, and what the orders cost and leave over."""
    from rich.console import Console
    from rich.table import Table

    if not ticket.orders:
        print("Orders: none, no trade is as large as min_trade and a whole lot")
        return
    table = Table("order", "shares", "price", "notional", "cost", "weight before", "after", title="Orders")
    for row in ticket.orders:
        money = ["" if value is None else f"{value:,.2f}" for value in (row.price, row.notional, row.cost)]
        shares = "" if row.shares is None else f"{row.shares:+,.8f}".rstrip("0").rstrip(".")
        side = "buy" if (row.after - row.before if row.shares is None else row.shares) > 0 else "sell"
        table.add_row(f"{side} {row.asset}", shares, *money, f"{row.before:.4f}", f"{row.after:.4f}")
    Console(width=100).print(table)
    said = f"Turnover {ticket.turnover:.4f} of net asset value, cash after it {ticket.cash_weight:.4f}"
    if ticket.capital is not None:
        said += f": {ticket.cash:,.2f} of {ticket.capital:,.2f}; costs {ticket.cost:,.2f}"
    print(said)


if __name__ == "__main__":
    entry.main("decide", "Print the portfolio to hold after the last date in the data, and the trades.", EXAMPLES, run)
