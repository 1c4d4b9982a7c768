"""Tables that commands print."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finflow.evaluation.audit.findings import Check
    from finflow.evaluation.decision_log import Realised
    from finflow.evaluation.result import Evaluation, Metrics
    from finflow.evaluation.study import Study
    from finflow.explanations.card import Card
    from finflow.stages.results import Trade
    from finflow.stages.ticket import Ticket
    from finflow.sweeps.leaderboard import Leaderboard
    from finflow.sweeps.table import Row

COLUMNS = ("annual_return", "volatility", "sharpe", "max_drawdown", "cvar95", "turnover", "effective_assets")
SHOWN = 10
"""Settings of a leaderboard, at most."""
TARGETS = 30
"""Names of a decision whose target is printed though they are not traded, at most; all stand in decision.csv."""
SETTING = 7
"""Columns of the table of settings that a terminal has room for; the metrics that follow stand in a table before."""


def show_metrics(metrics: "Mapping[str, Metrics]", year: int) -> None:
    """Print a row per strategy, the policy first, in the units of the report; a dash is an undefined value."""
    from finflow.report.tables import BY_FIELD

    measures = [BY_FIELD[name] for name in COLUMNS]
    rows = [[strategy, *(measure.cell(row).text for measure in measures)] for strategy, row in metrics.items()]
    columns = ["strategy", *(f"{measure.label}\n{measure.unit_in(year)}" for measure in measures)]
    show_table("Test window, net of costs", columns, rows)


def show_parts(evaluation: "Evaluation") -> None:
    """Print a row per variant of the policy, as in the report, and what the rows say; nothing where there are none."""
    from finflow.report.scrutiny import reality_says, reality_table

    scrutiny = evaluation.scrutiny
    if len(scrutiny.reality) < 2:
        return
    table = reality_table(scrutiny.reality)
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    show_table("The policy with one part taken away, on validation rows", [c.label for c in table.columns], rows)
    for sentence in reality_says(scrutiny.reality, evaluation.expert_names, scrutiny.gate):
        print(sentence)


def show_settings(study: "Study | None", evaluation: "Evaluation") -> None:
    """Print a row per compared setting, as in the report, and what the rows say; nothing of any other study."""
    from finflow.report.study import settings_says, settings_table

    if study is None or study.kind != "comparison":
        return
    table = settings_table(study, evaluation)
    columns = [f"{column.label}\n{column.unit}".strip() for column in table.columns[:SETTING]]
    rows = [["\n".join(filter(None, (c.text, c.note))) for c in row.cells[:SETTING]] for row in table.rows]
    show_table("Setting by setting, test window, net of costs", columns, rows)
    for sentence in settings_says(study):
        print(sentence)


def show_trades(title: str, trades: "Sequence[Trade]", least: float) -> None:
    """Print a row per name with a trade of at least `least`, and of the largest targets; a positive trade buys.

    Trades below `least` are blank: they are not on the ticket.
    """
    from rich.console import Console
    from rich.table import Table

    *names, cash = trades
    large = [row for row in names if row.note or abs(row.trade) >= least * (1 - 1e-9)]
    largest = [row for row in sorted(names, key=lambda row: -row.target)[:TARGETS] if row.target > 0]
    table = Table("asset", "held", "target", "trade", "", title=title)
    for row in (*(row for row in names if row in large or row in largest), cash):
        traded = f"{row.trade:+z.4f}" if row in large or (row is cash and large) else ""
        table.add_row(row.asset, f"{row.held:z.4f}", f"{row.target:z.4f}", traded, row.note)
    Console(width=100).print(table)
    if len(large) < len(names):
        print(f"Not traded: {len(names) - len(large)} names whose trade is below min_trade={least:g}")


def show_realised(became: "Sequence[Realised]") -> None:
    """Print a row per earlier decision: what it brought since, beside 1/N and what was held, and what was expected."""
    if not became:
        return

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:+z.2f}"

    rows = [
        [
            one.date, str(one.closes), *map(percent, (one.decided, one.equal, one.held)),
            *map(percent, (one.decided - one.equal, one.expected_equal)),
            *map(percent, (one.decided - one.held, one.expected_held)),
        ]
        for one in became
    ]  # fmt: skip
    columns = [
        "close of", "closes\nsince", "decided", "1/N", "held on", "beyond\n1/N", "expected", "beyond\nheld", "expected",
    ]  # fmt: skip
    show_table("What became of earlier decisions, net, %, each left alone since", columns, rows)
    print("Expected: by the critic, discounted, less the reward's penalties, over all that follows")


def show_ticket(ticket: "Ticket") -> None:
    """Print an order per row, and what the orders cost and leave over."""
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


def show_growth(days: int) -> None:
    """Say how much newer the data are than those of training, if they are."""
    if days:
        print(f"Data: {days} days newer than at training, the days before them unchanged")


def show_cards(cards: "Iterable[Card]") -> None:
    """Print a row per decision."""
    rows: list[list[str]] = []
    for card in cards:
        figures = (f"{x:.2f}" for x in (100 * card.turnover, 1e4 * card.cost, 100 * card.rate))
        rows.append([card.date, *figures, card.focus, card.leader, card.regime.label])
    columns = ["close of", "turnover %", "cost bp", "rate %", "explained", "leading expert", "regime"]
    show_table("Decisions", columns, rows)


def show_checks(checks: "Iterable[Check]") -> None:
    """Print a row per check: what was compared, how often, and what differed first."""
    rows = [
        [check.name, str(check.comparisons), check.differences[0].line() if check.differences else "same"]
        for check in checks
    ]
    show_table("Leak audit", ["what", "compared", "found"], rows)


def show_leaderboard(board: "Leaderboard") -> None:
    """Print the best settings, what they are worth, and the jobs that are not finished."""
    from finflow.report.sweep import beyond_cell, name_of, ranked_says, same_says

    keys = list(board.settings[0].values) if board.settings else []
    beyond = [f"Sharpe, to\n{name_of(board.reference)}"] if any(board.beyond) else []
    rows: list[list[str]] = []
    for at, setting in enumerate(board.settings[:SHOWN]):
        rank, score = board.ranks[at], "" if setting.score is None else f"{setting.score:.3f}"
        compared = [beyond_cell(board, at).text for _ in beyond]
        first = "" if rank is None else str(rank)
        rows.append([first, *setting.values.values(), score, *compared, _jobs(setting.rows)])
    title = f"{'Settings' if board.same else 'Best settings'} on validation {board.unit}s"
    show_table(title, ["", *keys, board.objective.replace("_", " "), *beyond, "jobs"], rows)
    for sentence in ranked_says(board):
        print(sentence)
    if board.same:
        print(f"All {len(board.settings)} settings are the same policy. {same_says(board)}")
    elif board.luck is not None:
        found, over = board.luck.deflated, board.luck.overfitting
        few = f"{_figure(found.deflated_effective, 3)} with {_figure(found.effective_trials, 1)} effective ones"
        print(
            f"Deflated Sharpe: {_figure(found.deflated, 3)} with {found.trials} trials, {few};"
            f" overfitting {_figure(over, 2)}"
        )
    if board.mixed_code:
        print(f"Warning: {board.mixed_code}")
    for row in board.rows:
        if row.state != "finished":
            print(f"Not finished: {row.job} {row.state}{': ' if row.reason else ''}{row.reason}")


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; its first column is never broken into lines, and nothing is cut off."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _figure(value: float, digits: int) -> str:
    """A number as text; some are undefined where there is one setting alone."""
    return "undefined" if math.isnan(value) else f"{value:.{digits}f}"


def _jobs(rows: "tuple[Row, ...]") -> str:
    return rows[0].job if len(rows) == 1 else f"{sum(row.state == 'finished' for row in rows)} of {len(rows)} finished"
