"""What a decision card shows beside its sentences: tables, bars, gauges and the critic's distribution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from finflow.evaluation.backtest import POLICY
from finflow.explanations.card import Card, DecisionOutcome, Line, Reasons
from finflow.explanations.decision import Alternative, Holding
from finflow.report.card_text import basis, listed, percent, plain_name
from finflow.report.tables import Cell, Column, Field, Row, Table, fact_table, number, signed, table_of

LINES = 24
"""Names that a table lists; the others are summed in one row."""
UNSEEN = 5e-6
"""What a rule of the ledger added to a weight, and the table would round to nothing, is left out."""
FAINT = 1e-4
"""Parts of a trade are shaded relative to the largest, at least a basis point, so that a held day stays white."""


def trade_table(card: Card) -> Table:
    """Weights before, target and after; trade and cost; and the parts that sum to the trade, experts first."""
    order = sorted(card.lines[:-1], key=lambda line: (-abs(line.trade), -line.after))
    shown, rest = order[:LINES], order[LINES:]
    traded = (part for line in order for part in (line.trade, *line.experts, line.execution))
    largest = max(FAINT, *map(abs, traded))
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
        *(Column(name, "bp") for name in (*card.gate, "execution")),
    )
    return Table(f"card-{card.date}-trades", columns, tuple(rows))


def _trade_row(name: str, lines: Sequence[Line], largest: float) -> Row:
    def total(field: str) -> float:
        return sum(getattr(line, field) for line in lines)

    parts = [sum(line.experts[k] for line in lines) for k in range(len(lines[0].experts))]
    trade, *parts = (_tinted(part, largest) for part in (total("trade"), *parts, total("execution")))
    weights = (number(total(field), 2, 100) for field in ("before", "target", "after"))
    return Row((Cell(name), *weights, trade, number(total("cost"), 3, 1e4), *parts))


def _tinted(part: float, largest: float) -> Cell:
    """Basis points, shaded by their size against the largest of a name; cash and sums may be beyond it."""
    return replace(signed(part, 2, 1e4), tint=min(max(part / largest, -1.0), 1.0))


def holding_table(card: Card, found: Holding) -> Table:
    """From what was held, over what each expert wanted, to what is held: the last column sums to the weight."""
    none = Cell("")
    parts = [("held before", none, none, found.before)]
    for name, (share, own) in found.experts.items():
        part = found.rate * share * (own - found.before)
        parts.append((name, number(share, 1, 100), number(own, 2, 100), part))
    parts += [(name, none, none, part) for name, part in found.rules.items() if abs(part) >= UNSEEN]
    rows = [Row((Cell(name), share, own, signed(part, 3, 100))) for name, share, own, part in parts]
    rows.append(Row((Cell("held after"), none, none, signed(found.weight, 3, 100)), "policy", group=True))
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
    found = outcome.alternatives
    fields: list[Field[str]] = [
        (Column("What", numeric=False), Cell),
        (Column(f"Next {card.unit}", "%"), lambda name: signed(found[name][0], 2, 100)),
        (Column(f"{outcome.days} closes", "%, left alone"), lambda name: signed(found[name][1], 2, 100)),
    ]
    return table_of(f"card-{card.date}-outcome", found, fields, lambda name: "policy" if name == POLICY else "")


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


THRESHOLDS = {
    "stable": "stable at or under",
    "leaves_volatile": "volatile ends below",
    "enters_volatile": "volatile begins at",
    "leaves_crisis": "crisis ends below",
    "enters_crisis": "crisis begins beyond",
}


@dataclass(frozen=True)
class Bar:
    """A labelled signed bar: `start` and `width` in % of the axis, zero at 50 unless all are positive."""

    label: str
    text: str
    note: str
    start: float
    width: float
    negative: bool


@dataclass(frozen=True)
class Gauge:
    """One reading on an axis from 0: the value and its thresholds, in % of the axis."""

    label: str
    text: str
    place: float
    marks: tuple[tuple[float, str], ...]
    says: str


def signed_bars(rows: Sequence[tuple[str, float, str]]) -> tuple[Bar, ...]:
    """Signed values (label, value as a fraction, note) as bars on either side of the middle, all in one unit."""
    reach = max((abs(value) for _, value, _ in rows), default=0.0) or 1.0
    bars: list[Bar] = []
    for label, value, note in rows:
        width = 50 * abs(value) / reach
        text = f"{1e4 * value:+z.2f} bp" if reach < 0.01 else f"{100 * value:+z.2f} %"
        bars.append(Bar(label, text, note, 50 - width if value < 0 else 50.0, width, value < 0))
    return tuple(bars)


def asked_bars(held: Holding) -> tuple[Bar, ...]:
    """Parts of a holding by who asked for it."""
    return signed_bars([(name, part, "") for name, part in held.asked.items()])


def gate_bars(card: Card) -> tuple[Bar, ...]:
    """Shares of the experts in the aim."""
    return tuple(Bar(name, percent(share, 1), "", 0.0, 100 * share, False) for name, share in card.gate.items())


def reason_bars(why: Reasons) -> tuple[Bar, ...]:
    """Shares of the inputs, the smaller ones summed."""
    told = [("" if one.value is None else f"at {one.value:+.1f} σ") for one in why.top]
    rows = [(plain_name(one.label), one.share, note) for one, note in zip(why.top, told, strict=True)]
    return signed_bars([*rows, ("all other inputs", why.rest, "")])


def regime_gauges(card: Card) -> tuple[Gauge, ...]:
    """Volatility and loss of 1/N, each with the thresholds of the regimes and how far off they are."""
    regime, found = card.regime, list[Gauge]()
    if regime.volatility is not None and regime.enters_volatile is not None:
        ratio = regime.volatility / regime.enters_volatile - 1
        says = f"{100 * abs(ratio):.0f} % {'above' if ratio >= 0 else 'below'} the level at which volatile begins"
        names = ("stable", "leaves_volatile", "enters_volatile")
        found.append(_gauge("Volatility of 1/N over a month, a year", regime.volatility, names, regime.distance, says))
    gap = regime.distance["enters_crisis"]
    says = f"{abs(100 * gap):.1f} points {'beyond' if gap > 0 else 'short of'} the loss at which crisis begins"
    names = ("leaves_crisis", "enters_crisis")
    found.append(_gauge("Loss of 1/N since its peak", regime.loss, names, regime.distance, says))
    return tuple(found)


def _gauge(label: str, value: float, names: Sequence[str], distance: Mapping[str, float], says: str) -> Gauge:
    levels = {name: value - distance[name] for name in names}
    top = 1.25 * max(value, *levels.values())
    marks = tuple(
        (100 * level / top, f"{THRESHOLDS[name]} {percent(level, 1)} ({100 * distance[name]:+.1f} points)")
        for name, level in levels.items()
    )
    return Gauge(label, percent(value, 1), 100 * value / top, marks, says)


def key_figures(card: Card) -> tuple[tuple[str, str, str], ...]:
    """Label, figure and unit of each figure in the strip at the top."""
    return (
        ("Turnover", percent(card.turnover), "of wealth, two-way"),
        ("Cost", basis(card.cost), "of wealth"),
        ("In cash after", percent(card.lines[-1].after, 1), f"{percent(card.lines[-1].before, 1)} before"),
        ("Trading rate", percent(card.rate), "first purchase" if card.entered else "of the way to the aim"),
        ("Leading expert", card.leader, f"{percent(card.gate[card.leader], 0)} of the gate"),
        ("Regime", card.regime.label, "known at the close"),
        ("Unusual day", f"{card.novelty.percentile:.0f}", "percentile of train days"),
    )


def value_axis(card: Card) -> Callable[[float], float]:
    """Places of values of the critic's distribution, in % of an axis that holds it and zero."""
    atoms = card.value_distribution.atoms
    low, high = min(0.0, *atoms), max(0.0, *atoms)
    edge = 0.04 * (high - low) or 1.0
    return lambda value: 100 * (value - low + edge) / (high - low + 2 * edge)


def provenance_table(card: Card) -> Table:
    """Facts that identify data, configuration and weights."""
    known = "all above but calibration and outcome was known by then"
    told = {name.replace("_", " "): listed(fact) for name, fact in card.provenance.items()}
    return fact_table(f"card-{card.date}-provenance", {"as of": f"close of {card.date}; {known}", **told})
