"""Sentences of a decision card: the trade, what would have flipped it, the critic's forecast.

Tables of a decision card.
"""

from collections.abc import Sequence
from dataclasses import replace

from finflow.explanations.card import Card, DecisionOutcome, Line
from finflow.explanations.counterfactual import Flip, Move
from finflow.explanations.decision import Alternative, Holding
from finflow.report.tables import Cell, Column, Field, Row, Table, number, signed, table_of

SMALL = 5e-5
"""Smaller trades than half a basis point are left out of the sentences."""
NEAR = 0.1
"""Smaller moves, in train standard deviations, are written with more digits."""


def percent(value: float, decimals: int = 2) -> str:
    """A fraction in per cent."""
    return f"{100 * value + 0.0:.{decimals}f} %"


def basis(value: float) -> str:
    """A fraction in basis points."""
    return f"{1e4 * value + 0.0:.2f} bp"


def headline(card: Card) -> str:
    """The trade in one sentence."""
    traded = sorted((line for line in card.lines[:-1]), key=lambda line: -abs(line.trade))
    told = [line for line in traded[:3] if abs(line.trade) >= SMALL]
    if card.entered:
        return f"Entered from cash: the whole aim was bought, {percent(card.turnover, 1)} of wealth."
    if not told:
        return "Held: no name was traded by as much as half a basis point of wealth."
    words = [f"{'bought' if line.trade > 0 else 'sold'} {percent(abs(line.trade))} {line.asset}" for line in told]
    others = sum(1 for line in traded if abs(line.trade) >= SMALL) - len(told)
    rest = f", and {others} smaller trade{'s' if others > 1 else ''}" if others else ""
    text = ", ".join(words) + rest
    return f"{text[0].upper()}{text[1:]}."


def holding_says(found: Holding) -> tuple[str, ...]:
    """Why a holding is as large as it is: its trades and drift, the way to the aim, the rules, and its costs."""
    away = "as far as it was asked" if found.rate == 1.0 else f"{percent(found.rate)} of the way"
    rules = [f"{name} {1e4 * part + 0.0:+.2f} bp" for name, part in found.rules.items() if abs(part) >= SMALL / 100]
    return (
        f"{found.asset} is {percent(found.weight)} of wealth. Before the close of {found.since} it was "
        f"{percent(found.start)}; from then on trades added {100 * found.traded:+z.2f} points, prices "
        f"{100 * found.drift:+z.2f}.",
        f"The aim is {percent(found.aim)}: each expert's own weight for it, times its share of the gate. From "
        f"{percent(found.before)} before, it went {away}, to {percent(found.target)}.",
        f"Of the ledger's rules: {', '.join(rules)}." if rules else "No rule of the ledger changed that.",
        f"Costs change no weight, they are paid from all wealth: {basis(found.cost)} for its trade that day, "
        f"{basis(found.cost_since)} for all since {found.since}. The trading rate was learnt "
        f"where a trade costs {1e4 * found.cost_rate:g} bp.",
    )


def plain_name(label: str) -> str:
    """An input's name in words: `prior:growth` is growth's prior."""
    before, _, expert = label.partition("prior:")
    return f"{expert}'s prior" if expert and not before else label.replace("_", " ")


def flip_says(flip: Flip) -> tuple[str, ...]:
    """The changes that flip a decision: the smallest of one feature, and of all of them together."""
    if flip.single is None and flip.joint is None:
        return ("No move of the features within ±5 σ does it: priors and holdings decide here.",)
    said: list[str] = []
    if flip.single is None:
        said.append("No single feature does it within ±5 σ.")
    else:
        said.append(f"Alone: {_move(flip.single)}, {_away(flip.single.size)}.")
    if flip.joint is not None:
        moves = "; ".join(_move(move) for move in flip.parts[:3])
        said.append(f"Together: {_away(flip.joint)}, above all {moves}.")
    return tuple(said)


def _move(move: Move) -> str:
    digits = 1 if move.size >= NEAR else 4
    return f"{plain_name(move.label)} from {move.before:+.{digits}f} to {move.after:+.{digits}f} σ"


def _away(size: float) -> str:
    return f"{size:.2f} σ away" if size >= NEAR else f"only {size:.1g} σ away: it hung by a thread"


def leaders_say(card: Card) -> str:
    """The expert that would lead the gate under another regime label."""
    if len(card.gate) == 1:
        return "One expert, no gate: the regime label moves it as any other input does."
    leaders = set(card.leaders.values())
    if len(leaders) == 1:
        return f"Under any regime label {next(iter(leaders))} would lead the gate, all else equal."
    told = ", ".join(f"{leader} under {regime}" for regime, leader in card.leaders.items())
    return f"Another label, all else equal, would give the lead to: {told}."


def expects(card: Card) -> tuple[str, ...]:
    """The critic's forecast, and how well its forecasts held over a window."""
    found, calibration = card.value_distribution, card.calibration
    low, middle, high = found.quantiles.values()
    says = [
        f"Discounted active reward (γ {found.gamma:g}, about {1 / (1 - found.gamma):.0f} {card.unit}s): "
        f"mean {found.mean:+.2f}, median {middle:+.1f}, 5 to 95 % {low:+.1f} to {high:+.1f}. "
        f"{found.scale / 100:.2g} units are an active log return of 1 %."
    ]
    if calibration is None:
        return (*says, f"The {card.calibration_window} window is too short to say how well the critic was calibrated.")
    ratio = calibration.spread_ratio
    held = f"{percent(calibration.coverage, 0)} of what the month after it brought (90 % if calibrated)"
    judged = f"Over the whole {card.calibration_window} window its 5 to 95 % band held {held}"
    if ratio is not None:
        word = "too sure of itself" if ratio > 1.1 else "not sure enough" if ratio < 0.9 else "about right in width"
        judged += f"; surprises were {ratio:.1f} times as large as it expected: it was {word}"
    sign = "" if calibration.bias_low <= 0 <= calibration.bias_high else ", which is not zero"
    interval = f"[{calibration.bias_low:+.2f}, {calibration.bias_high:+.2f}]"
    return (*says, f"{judged}. Mean surprise {calibration.bias:+.2f} {interval}{sign}.")


def novelty(card: Card) -> tuple[str, ...]:
    """Distance of the day from the train days."""
    found = card.novelty
    odd = ", ".join(f"{plain_name(name)} {value:+.1f} σ" for name, value in found.unusual)
    like = ", ".join(found.nearest)
    rank = f"Distance to the nearest train days: larger than for {found.percentile:.0f} % of the train days."
    return rank, f"Nearest train days: {like}.", f"Furthest from the train mean: {odd}."


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
