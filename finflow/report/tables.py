"""Tables of the report: cells hold the text to show and the number to sort by; no number is computed here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from finflow.data.market import unit_of
from finflow.evaluation.metrics import readings
from finflow.evaluation.result import CostRow, Evaluation, Metrics
from finflow.evaluation.study import Middle
from finflow.io.files import flatten
from finflow.report.verdict import Estimate, Interval, interval, tone

DASH = "–"
"""Shown for an undefined figure: neither 0 nor an empty cell."""


@dataclass(frozen=True)
class Column:
    """Header of a column; `unit` stands under the label."""

    label: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """What is shown and, for a number, what it sorts by (None: after all numbers).

    `note` stands small under the text; `interval` draws a small bar against zero before it, in the colours of the
    class `tone`. `tint` from -1 to 1 shades the cell.
    """

    text: str
    value: float | None = None
    note: str = ""
    interval: Interval | None = None
    tone: str = ""
    tint: float = 0.0


@dataclass(frozen=True)
class Row:
    """Cells of one row; `mark` is "policy", "opponent" or nothing, and `group` starts a new block of rows."""

    cells: tuple[Cell, ...]
    mark: str = ""
    group: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page; `key` is its element id."""

    key: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = False


Item = TypeVar("Item")
Field = tuple[Column, Callable[[Item], Cell]]
"""Header of a column, and what writes its cell of an item."""


def table_of(
    key: str,
    items: Iterable[Item],
    fields: Sequence[Field[Item]],
    mark: Callable[[Item], str] = lambda _: "",
    last: Sequence[Row] = (),
    *,
    sortable: bool = False,
) -> Table:
    """A table with one row per item, and the rows `last` below them."""
    rows = [Row(tuple(cell(item) for _, cell in fields), mark(item)) for item in items]
    return Table(key, tuple(column for column, _ in fields), (*rows, *last), sortable)


@dataclass(frozen=True)
class Measure:
    """How a field of `Metrics` is written."""

    field: str
    label: str
    unit: str
    scale: float
    decimals: int

    def cell(self, metrics: Metrics) -> Cell:
        """Write this figure of `metrics`."""
        return number(getattr(metrics, self.field), self.decimals, self.scale)

    def unit_in(self, year: int) -> str:
        """Its unit on a calendar with so many rows a year: a day may be a week."""
        return self.unit.replace("day", unit_of(year))

    def column(self, year: int) -> Column:
        """Header of this figure."""
        return Column(self.label, self.unit_in(year))


MEASURES = (
    Measure("annual_return", "Return", "% a year", 100, 1),
    Measure("volatility", "Volatility", "% a year", 100, 1),
    Measure("sharpe", "Sharpe", "ratio", 1, 2),
    Measure("sortino", "Sortino", "ratio", 1, 2),
    Measure("calmar", "Calmar", "ratio", 1, 2),
    Measure("cvar95", "CVaR\u00a095\u00a0%", "% a day", 100, 2),
    Measure("max_drawdown", "Max drawdown", "%", 100, 1),
    Measure("drawdown_days", "Longest drawdown", "days", 1, 0),
    Measure("turnover", "Turnover", "× a year", 1, 2),
    Measure("effective_assets", "Effective assets", "count", 1, 1),
    Measure("hit_rate", "Hit rate", "% of days", 100, 1),
    Measure("tail_ratio", "Tail ratio", "95th / 5th", 1, 2),
    Measure("final_nav", "Final NAV", "start = 1", 1, 3),
)
BY_FIELD = {measure.field: measure for measure in MEASURES}
KEY_FIGURES = ("annual_return", "volatility", "sharpe", "max_drawdown", "cvar95", "turnover", "effective_assets",
               "final_nav")  # fmt: skip
REGIME_FIGURES = ("annual_return", "volatility", "sharpe", "cvar95", "max_drawdown", "turnover", "hit_rate")


def number(value: float | None, decimals: int, scale: float = 1.0) -> Cell:
    """Write a number; nan and None as a dash."""
    if value is None or value != value:
        return Cell(DASH)
    shown = round(value * scale, decimals) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return Cell(f"{shown:,.{decimals}f}", float(value))


def total_return(metrics: Metrics) -> Cell:
    """Return over the whole time measured, in %: of short ones the only one, since those are not annualised."""
    return signed(metrics.final_nav - 1.0, 1, 100)


def signed(value: float | None, decimals: int, scale: float = 1.0) -> Cell:
    """Write a number with its sign; one that rounds to zero has none."""
    plain = number(value, decimals, scale)
    positive = plain.value is not None and round(plain.value * scale, decimals) > 0
    return Cell(f"+{plain.text}", plain.value) if positive else plain


def probability(value: float | None) -> Cell:
    """Write a p-value."""
    plain = number(value, 3)
    return Cell("< 0.001", plain.value) if plain.value is not None and plain.value < 0.0005 else plain


def middle_cell(found: Middle | None, write: Callable[[float, int], Cell]) -> Cell:
    """An estimate with the ends of its interval, each written by `write`."""
    if found is None:
        return Cell(DASH)
    middle, low, high = (write(x, 2) for x in found)
    return Cell(f"{middle.text} [{low.text}, {high.text}]", middle.value)


def interval_cell(estimate: Estimate, reach: float) -> Cell:
    """A 95 % interval drawn against zero on the axis from `-reach` to `reach`, and written."""
    place = interval(estimate, reach)
    if place is None:
        return Cell(DASH)
    ends = f"[{number(estimate.low, 2).text}, {number(estimate.high, 2).text}]"
    return Cell(ends, estimate.low, interval=place, tone=tone(estimate))


def metric_table(evaluation: Evaluation) -> Table:
    """Every strategy over the whole window, the policy first."""
    first, year = Column("Strategy", "net of costs", numeric=False), evaluation.policy.year
    rows = [
        Row((Cell(name), *(measure.cell(metrics) for measure in MEASURES)), mark(name, evaluation))
        for name, metrics in evaluation.metrics.items()
    ]
    columns = (first, *(measure.column(year) for measure in MEASURES))
    return Table("metrics-table", columns, tuple(rows), sortable=True)


def regime_table(evaluation: Evaluation) -> Table:
    """Policy and opponent on the days decided under each label."""
    wanted = [BY_FIELD[field] for field in REGIME_FIGURES]
    rows: list[Row] = []
    for regime, strategies in evaluation.by_regime.items():
        pair = [name for name in (evaluation.policy.name, evaluation.verdict.opponent) if name in strategies]
        for i, name in enumerate(pair):
            days = number(evaluation.regime_days.get(regime), 0)
            own = strategies[name]
            cells = (Cell(regime), days, Cell(name), total_return(own), *(measure.cell(own) for measure in wanted))
            rows.append(Row(cells, mark(name, evaluation), group=i == 0))
    year = evaluation.policy.year
    columns = (
        Column("Regime", numeric=False),
        Column(f"{unit_of(year).capitalize()}s"),
        Column("Strategy", numeric=False),
        Column("Return", "% in all"),
    )
    return Table("regime-table", (*columns, *(measure.column(year) for measure in wanted)), tuple(rows))


def regime_sharpe_table(evaluation: Evaluation) -> Table:
    """Sharpe ratio of every strategy in every regime."""
    sharpe = BY_FIELD["sharpe"]
    rows: list[Row] = []
    for name in evaluation.metrics:
        cells = [sharpe.cell(by[name]) if name in by else Cell(DASH) for by in evaluation.by_regime.values()]
        rows.append(Row((Cell(name), *cells), mark(name, evaluation)))
    columns = (Column("Strategy", "Sharpe ratio", numeric=False), *(Column(r) for r in evaluation.by_regime))
    return Table("regime-sharpe-table", columns, tuple(rows), sortable=True)


def cost_table(evaluation: Evaluation) -> Table:
    """Policy and opponent at several costs, decisions unchanged."""
    fields: list[Field[CostRow]] = [
        (Column("Cost", "bp of traded notional"), lambda row: number(row.bps, 0)),
        (Column("Policy Sharpe", "ratio"), lambda row: number(row.sharpe, 2)),
        (Column(f"{evaluation.verdict.opponent} Sharpe", "ratio"), lambda row: number(row.opponent_sharpe, 2)),
        (Column("Policy return", "% a year"), lambda row: number(row.annual_return, 1, 100)),
    ]
    return table_of("cost-table", evaluation.costs, fields)


def diagnostics_table(evaluation: Evaluation) -> Table:
    """Diagnostics of the gate and the experts, each beside its change since phase 1."""
    rows = [
        Row((Cell(reading.label, note=reading.unit), number(now, reading.decimals), signed(change, reading.decimals)))
        for reading, now, change in readings(evaluation.diagnostics)
    ]
    columns = (Column("Diagnostic", numeric=False), Column("Value"), Column("Change", "since phase 1"))
    return Table("diagnostics-table", columns, tuple(rows))


def fact_table(key: str, facts: Mapping[str, Any]) -> Table:
    """Names and values of plain facts; nested ones with dotted names."""

    def text(value: Any) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return DASH if value is None else str(value)

    rows = tuple(Row((Cell(name), Cell(text(value)))) for name, value in flatten(facts).items())
    return Table(key, (Column("Fact", numeric=False), Column("Value", numeric=False)), rows)


def mark(name: str, evaluation: Evaluation) -> str:
    """How a strategy's row is marked."""
    if name == evaluation.policy.name:
        return "policy"
    return "opponent" if name == evaluation.verdict.opponent else ""
