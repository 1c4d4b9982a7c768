"""Tables by calendar year and month: returns, turnover and cost."""

from collections.abc import Sequence

import numpy as np

from finflow.evaluation.metrics import period_returns, period_sums, underwater
from finflow.evaluation.result import Evaluation, Floats, Track
from finflow.report.figures import rivals_shown
from finflow.report.tables import DASH, Cell, Column, Field, Row, Table, number, signed, table_of

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FULL_TINT = 0.08
"""Return of a month, either way, at which a cell has its full colour."""


def year_table(evaluation: Evaluation) -> Table:
    """One row per calendar year: returns, the lead over each rival, deepest fall, turnover and cost of the policy."""
    policy, rivals = evaluation.policy, rivals_shown(evaluation)
    years, ours = period_returns(policy.dates, policy.net, "Y")
    theirs = [period_returns(rival.dates, rival.net, "Y")[1] for rival in rivals]
    fall = np.array([-underwater(policy.nav)[policy.dates.astype("datetime64[Y]") == year].min() for year in years])
    _, turnover = period_sums(policy.dates, policy.turnover, "Y")
    _, cost = period_sums(policy.dates, policy.cost, "Y")

    def against(rival: Track, returns: Floats) -> tuple[Field[int], Field[int]]:
        own: Field[int] = Column(rival.name, "%"), lambda at: signed(returns[at], 1, 100)
        return own, (Column("Lead", "points"), lambda at: _lead(ours[at] - returns[at]))

    fields: list[Field[int]] = [
        (Column("Year", numeric=False), lambda at: Cell(str(years[at]), note=_part_of_year(policy, years[at]))),
        (Column("Policy", "%"), lambda at: signed(ours[at], 1, 100)),
        *(field for rival, returns in zip(rivals, theirs, strict=True) for field in against(rival, returns)),
        (Column("Lowest", "% under the peak"), lambda at: number(fall[at], 1, 100)),
        (Column("Turnover", "× wealth"), lambda at: number(turnover[at], 2)),
        (Column("Cost", "% of wealth"), lambda at: number(cost[at], 2, 100)),
    ]
    return table_of("year-table", range(len(years)), fields)


def month_table(evaluation: Evaluation) -> Table:
    """The policy's returns as a heat map: a row per year, a column per month, and the year."""
    policy = evaluation.policy
    months, returns = period_returns(policy.dates, policy.net, "M")
    by_month = dict(zip(months.astype(np.int64).tolist(), returns.tolist(), strict=True))
    years, yearly = period_returns(policy.dates, policy.net, "Y")
    rows: list[Row] = []
    for year, whole in zip(years.astype(np.int64).tolist(), yearly.tolist(), strict=True):
        cells = [_heat(by_month.get(12 * year + month)) for month in range(12)]
        rows.append(Row((Cell(str(1970 + year)), *cells, signed(whole, 1, 100))))
    columns = (Column("Year", numeric=False), *(Column(name) for name in MONTHS), Column("Year"))
    return Table("month-table", columns, tuple(rows))


def month_says(evaluation: Evaluation) -> str:
    """How many months gained, and which were the best and the worst."""
    months, returns = period_returns(evaluation.policy.dates, evaluation.policy.net, "M")
    best, worst = int(np.argmax(returns)), int(np.argmin(returns))
    ends = (f"{months[at]}, {100 * returns[at]:+.1f} %" for at in (best, worst))
    return f"{int((returns > 0).sum())} of {len(months)} months gained. Best: {next(ends)}; worst: {next(ends)}."


def _part_of_year(track: Track, year: np.datetime64) -> str:
    """Months of a year that the window cuts."""
    months: Sequence[int] = np.unique(track.dates[track.dates.astype("datetime64[Y]") == year]
                                      .astype("datetime64[M]").astype(np.int64) % 12).tolist()  # fmt: skip
    return "" if len(months) == 12 else f"{MONTHS[months[0]]} to {MONTHS[months[-1]]}"


def _lead(value: float) -> Cell:
    cell = signed(value, 1, 100)
    return Cell(cell.text, cell.value, tone="beats" if value > 0 else "worse" if value < 0 else "")


def _heat(value: float | None) -> Cell:
    if value is None:
        return Cell(DASH)
    cell = signed(value, 1, 100)
    return Cell(cell.text, cell.value, tint=float(np.clip(value / FULL_TINT, -1.0, 1.0)))
