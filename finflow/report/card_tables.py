"""Tables of a decision card."""

from collections.abc import Sequence
from dataclasses import replace

from finflow.explanations.alternatives import Alternative
from finflow.explanations.card import Card, DecisionOutcome, Line
from finflow.explanations.holding import Holding
from finflow.report.tables import Cell, Column, Field, Row, Table, number, signed, table_of

LINES = 24
"""Names that a table lists; the others are summed in one row."""
UNSEEN = 5e-6
"""What a rule of the ledger added to a weight, and the table would round to nothing, is left out."""
FAINT = 1e-4
"""Parts of a trade are shaded relative to the largest, at least a basis point, so that a held day stays white."""


def trade_table(card: Card) -> Table:
    """Weights before, target and after; trade and cost; and the parts that sum to the trade, experts first."""
    experts = tuple(card.gate)
    order = sorted(card.lines[:-1], key=lambda line: (-abs(line.trade), -line.after))
    shown, rest = order[:LINES], order[LINES:]
    largest = max(
        FAINT, *(abs(part) for line in card.lines[:-1] for part in (line.trade, *line.experts, line.execution))
    )
    rows = [_trade_row(line.asset, [line], largest) for line in shown]
    if rest:
        rows.append(_trade_row(f"{len(rest)} other names", rest, largest))
    rows.append(replace(_trade_row(card.lines[-1].asset, [card.lines[-1]], largest), group=True))
    columns = (
        Column("Name", numeric=False),
        Column("Before", "%, drifted"),
        Column("Asked for", "%"),
        Column("After", "%"),
        Column("Trade", "bp"),
        Column("Cost", "bp"),
        *(Column(name, "bp") for name in (*experts, "execution")),
    )
    return Table(f"card-{card.date}-trades", columns, tuple(rows))


def _trade_row(name: str, lines: Sequence[Line], largest: float) -> Row:
    def total(field: str) -> float:
        return sum(getattr(line, field) for line in lines)

    parts = [sum(line.experts[k] for line in lines) for k in range(len(lines[0].experts))]
    cells = (
        Cell(name),
        *(number(total(field), 2, 100) for field in ("before", "target", "after")),
        _tinted(total("trade"), largest),
        number(total("cost"), 3, 1e4),
        *(_tinted(part, largest) for part in (*parts, total("execution"))),
    )
    return Row(cells)


def _tinted(part: float, largest: float) -> Cell:
    """Basis points, shaded by their size against the largest of a name; cash and sums may be beyond it."""
    tint = min(max(part / largest, -1.0), 1.0)
    return replace(signed(part, 2, 1e4), tint=tint)


def holding_table(card: Card, found: Holding) -> Table:
    """From what was held, over what each expert wanted, to what is held: the last column sums to the weight."""
    rows = [Row((Cell("held before"), Cell(""), Cell(""), signed(found.before, 3, 100)))]
    for name, (share, own) in found.experts.items():
        part = found.rate * share * (own - found.before)
        rows.append(Row((Cell(name), number(share, 1, 100), number(own, 2, 100), signed(part, 3, 100))))
    rows += [
        Row((Cell(name), Cell(""), Cell(""), signed(part, 3, 100)))
        for name, part in found.rules.items()
        if abs(part) >= UNSEEN
    ]
    rows.append(Row((Cell("held after"), Cell(""), Cell(""), signed(found.weight, 3, 100)), "policy", group=True))
    columns = (
        Column("That day", numeric=False),
        Column("Gate share", "%"),
        Column(f"Its {found.asset}", "% of wealth"),
        Column("Part", "points"),
    )
    return Table(f"card-{card.date}-holding", columns, tuple(rows))


def tail_table(card: Card) -> Table:
    """Names by their part of the portfolio's CVaR."""
    order = sorted(card.lines[:-1], key=lambda line: -line.tail)[:8]
    whole = card.tail.cvar
    fields: list[Field[Line]] = [
        (Column("Name", numeric=False), lambda line: Cell(line.asset)),
        (Column("Weight", "%"), lambda line: number(line.after, 1, 100)),
        (Column("Marginal CVaR", f"% a {card.unit}"), lambda line: number(line.marginal, 2, 100)),
        (Column("Part", f"% a {card.unit}"), lambda line: number(line.tail, 3, 100)),
        (Column("Share", "% of the CVaR"), lambda line: number(line.tail / whole if whole > 0 else None, 0, 100)),
    ]
    return table_of(f"card-{card.date}-tail", order, fields)


def alternatives_table(card: Card) -> Table:
    """Alternatives in the same state."""
    focus = next(i for i, line in enumerate(card.lines) if line.asset == card.focus)
    done = card.alternatives[0]
    fields: list[Field[Alternative]] = [
        (Column("What", numeric=False), lambda one: Cell(one.name)),
        (Column("Turnover", "%"), lambda one: number(one.turnover, 2, 100)),
        (Column("Cost", "bp"), lambda one: number(one.cost, 3, 1e4)),
        (Column(card.focus, "weight, %"), lambda one: number(one.weights[focus], 2, 100)),
        (Column("Distance", "% moved"), lambda one: number(one.distance, 2, 100)),
        (Column("Critic", "against it"), lambda one: signed(None if one is done else one.advantage, 3)),
    ]
    key = f"card-{card.date}-alternatives"
    return table_of(key, card.alternatives, fields, lambda one: "policy" if one is done else "")


def outcome_table(card: Card, outcome: DecisionOutcome) -> Table:
    """Returns of what was done and of what else could have been, left alone."""
    rows = [
        Row((Cell(name), signed(one, 2, 100), signed(later, 2, 100)), "policy" if i == 0 else "")
        for i, (name, (one, later)) in enumerate(outcome.alternatives.items())
    ]
    columns = (
        Column("What", numeric=False),
        Column(f"Next {card.unit}", "%"),
        Column(f"{outcome.days} closes", "%, left alone"),
    )
    return Table(f"card-{card.date}-outcome", columns, tuple(rows))


def outcome_names_table(card: Card, outcome: DecisionOutcome) -> Table:
    """Returns of the names that were traded most."""
    places = sorted(range(len(card.lines) - 1), key=lambda i: -abs(card.lines[i].trade))[:8]
    fields: list[Field[int]] = [
        (Column("Name", numeric=False), lambda i: Cell(card.lines[i].asset)),
        (Column("Trade", "bp of wealth"), lambda i: signed(card.lines[i].trade, 2, 1e4)),
        (Column(f"Next {card.unit}", "%"), lambda i: signed(outcome.next[i], 2, 100)),
        (Column(f"{outcome.days} closes", "%"), lambda i: signed(outcome.later[i], 2, 100)),
    ]
    return table_of(f"card-{card.date}-names", places, fields)
