"""A decision card as a page of its own, and as a section of the report: words and tables, no script, no picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finflow.explanations.card import Card, Reasons
from finflow.io.files import atomic_write
from finflow.report import card_text
from finflow.report.card_text import basis, percent, plain_name
from finflow.report.html import asset, templates
from finflow.report.tables import Table, fact_table

THRESHOLDS = {
    "stable": "stable at or under",
    "leaves_volatile": "volatile ends below",
    "enters_volatile": "volatile begins at",
    "leaves_crisis": "crisis ends below",
    "enters_crisis": "crisis begins beyond",
}
STANDING = {
    "train": "A day of the train window: the policy was fitted on it. This shows how it decides, not how good it is.",
    "validation": "A day of the validation window, by which the checkpoint was selected.",
    "test": "",
    "live": "A decision after the test window: what follows it was not known in training, selection or judgement.",
}
"""A note for the reader on the window of a card."""


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


@dataclass(frozen=True)
class ValueView:
    """The critic's distribution on one axis, in % of it: atoms, zero, and the named quantiles with their text."""

    atoms: tuple[float, ...]
    zero: float
    quantiles: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class CardView:
    """Values for the template of one card; `transform` is the histogram of the critic's calibration, in %."""

    card: Card
    key: str
    title: str
    headline: str
    standing: str
    holding: tuple[str, ...]
    asked: tuple[Bar, ...]
    figures: tuple[tuple[str, str, str], ...]
    gate: tuple[Bar, ...]
    gauges: tuple[Gauge, ...]
    why: tuple[tuple[str, str, tuple[Bar, ...], str], ...]
    flips: tuple[tuple[str, tuple[str, ...]], ...]
    leaders: str
    expects: tuple[str, ...]
    value_distribution: ValueView
    transform: tuple[float, ...]
    novelty: tuple[str, ...]
    tables: dict[str, Table]


def write_card(path: Path, card: Card) -> None:
    """Write the page of one card to `path`, whole or not at all.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    atomic_write(path, render_card(card).encode())


def render_card(card: Card) -> str:
    """The page of one card as HTML text."""
    return _page("card_page.html.j2", view=card_view(card))


def write_index(path: Path, cards: Sequence[Card], pages: Sequence[str]) -> Path:
    """Write the page that lists several cards, with links; returns `path`.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    views = [(card_view(card), page) for card, page in zip(cards, pages, strict=True)]
    atomic_write(path, _page("card_index.html.j2", views=views).encode())
    return path


def _page(template: str, **context: Any) -> str:
    return templates().get_template(template).render(**context, css=asset("page.css") + asset("card.css"))


def card_view(card: Card) -> CardView:
    """Put a card into words, bars and tables."""
    held = card.holding
    tables = {
        "trades": card_text.trade_table(card),
        "tail": card_text.tail_table(card),
        "alternatives": card_text.alternatives_table(card),
    }
    if card.outcome is not None:
        tables |= {
            "outcome": card_text.outcome_table(card, card.outcome),
            "names": card_text.outcome_names_table(card, card.outcome),
        }
    if held is not None:
        tables["holding"] = card_text.holding_table(card, held)
    tables["provenance"] = fact_table(f"card-{card.date}-provenance", _provenance(card))
    return CardView(
        card=card,
        key=f"card-{card.date}",
        title=title_of(card),
        headline=card_text.headline(card),
        standing=STANDING[card.window],
        holding=card_text.holding_says(held) if held else (),
        asked=signed_bars([(name, part, "") for name, part in held.asked.items()]) if held else (),
        figures=(
            ("Turnover", percent(card.turnover), "of wealth, two-way"),
            ("Cost", basis(card.cost), "of wealth"),
            ("In cash after", percent(card.lines[-1].after, 1), f"{percent(card.lines[-1].before, 1)} before"),
            ("Trading rate", percent(card.rate), "first purchase" if card.entered else "of the way to the aim"),
            ("Leading expert", card.leader, f"{percent(card.gate[card.leader], 0)} of the gate"),
            ("Regime", card.regime.label, "known at the close"),
            ("Unusual day", f"{card.novelty.percentile:.0f}", "percentile of train days"),
        ),
        gate=tuple(Bar(name, percent(share, 1), "", 0.0, 100 * share, False) for name, share in card.gate.items()),
        gauges=regime_gauges(card),
        why=(_why("The trade", card.why_trade), _why("The aim", card.why_aim)),
        flips=tuple((flip.question, card_text.flip_says(flip)) for flip in card.flips),
        leaders=card_text.leaders_say(card),
        expects=card_text.expects(card),
        value_distribution=_value_view(card),
        transform=() if card.calibration is None else tuple(100 * share for share in card.calibration.histogram),
        novelty=card_text.novelty(card),
        tables=tables,
    )


def signed_bars(rows: Sequence[tuple[str, float, str]]) -> tuple[Bar, ...]:
    """Signed values (label, value as a fraction, note) as bars on either side of the middle, all in one unit."""
    reach = max((abs(value) for _, value, _ in rows), default=0.0) or 1.0
    bars: list[Bar] = []
    for label, value, note in rows:
        width = 50 * abs(value) / reach
        text = f"{1e4 * value:+z.2f} bp" if reach < 0.01 else f"{100 * value:+z.2f} %"
        bars.append(Bar(label, text, note, 50 - width if value < 0 else 50.0, width, value < 0))
    return tuple(bars)


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


def _why(title: str, reasons: Reasons) -> tuple[str, str, tuple[Bar, ...], str]:
    rows = [
        (plain_name(one.label), one.share, "" if one.value is None else f"at {one.value:+.1f} σ") for one in reasons.top
    ]
    rows.append(("all other inputs", reasons.rest, ""))
    average = f"on an average day, with the same holdings, {percent(reasons.average)}"
    says = f"{reasons.subject}: {percent(reasons.value)}; {average}."
    foot = f"Completeness residual {1e4 * reasons.residual:+.5f} bp, {reasons.steps} points of the integral."
    return title, f"{says[0].upper()}{says[1:]}", signed_bars(rows), foot


def _value_view(card: Card) -> ValueView:
    found = card.value_distribution
    low, high = min(0.0, *found.atoms), max(0.0, *found.atoms)
    edge = 0.04 * (high - low) or 1.0

    def place(value: float) -> float:
        return 100 * (value - low + edge) / (high - low + 2 * edge)

    named = tuple((place(value), f"{name} {value:+.1f}") for name, value in found.quantiles.items())
    return ValueView(tuple(place(atom) for atom in found.atoms), place(0.0), named)


def _provenance(card: Card) -> dict[str, Any]:
    known = "all above but calibration and outcome was known by then"
    told = {name.replace("_", " "): listed(fact) for name, fact in card.provenance.items()}
    return {"as of": f"close of {card.date}; {known}", **told}


def listed(fact: Any) -> Any:
    """A fact of several seeds as text, of one as it is."""
    return ", ".join(map(str, fact)) if isinstance(fact, list) else fact


def title_of(card: Card) -> str:
    """Window and run of a card; of seeds averaged all of them."""
    runs = card.provenance["run"]
    several = f"{len(runs)} seeds averaged: " if isinstance(runs, list) else ""
    return f"{card.window} window · {several}{listed(runs)}"
