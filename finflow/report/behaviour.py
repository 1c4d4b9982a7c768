"""How a policy behaved: rolling risk, drawdowns, figures against its rivals, calendar tables, and holdings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from finflow.data.market import unit_of
from finflow.evaluation import metrics
from finflow.evaluation.metrics import Drawdown, deepest_drawdowns, period_returns, period_sums
from finflow.evaluation.relative import relative, rolling, skewness
from finflow.evaluation.result import Evaluation, Floats, Track
from finflow.explanations.performance import NamePart
from finflow.report import theme
from finflow.report.figures import rivals_shown
from finflow.report.tables import Cell, Column, Field, Row, Table, number, signed, table_of
from finflow.report.theme import BLUE, GREY, OPPONENT, PERCENT, POLICY, Chart


def rolling_chart(evaluation: Evaluation) -> Chart | None:
    """Sharpe ratio and volatility of policy and 1/N, and the policy's beta on it, over rolling windows."""
    name = evaluation.verdict.opponent
    found = rolling(evaluation.policy, evaluation.baselines[name])
    if found is None or len(found.beta) < 2:
        return None
    rows = theme.shown_rows(len(found.beta))
    x = theme.days(evaluation.policy.dates[found.window - 1 :][rows])
    figure = theme.stacked(1, 1, 1, spacing=0.05)

    def line(values: Floats, row: int, label: str, colour: str, shown: str, dash: str = "solid") -> None:
        figure.add_scatter(
            x=x, y=theme.numbers(values[rows], 4), name=theme.text(label), legendgroup=theme.text(label),
            showlegend=row == 1, legendrank=1 if label == "policy" else 2,
            line={"width": 2, "color": colour, "dash": dash}, hovertemplate=shown,
            row=row, col=1,
        )  # fmt: skip

    line(found.other_sharpe, 1, name, OPPONENT, "%{y:.2f}", "10px,2px")
    line(found.sharpe, 1, "policy", POLICY, "%{y:.2f}")
    line(found.other_volatility, 2, name, OPPONENT, "%{y:.1%}", "10px,2px")
    line(found.volatility, 2, "policy", POLICY, "%{y:.1%}")
    line(found.beta, 3, "policy", POLICY, "%{y:.2f}")
    for level, row in ((0, 1), (1, 3)):
        figure.add_hline(y=level, line={"width": 1, "color": GREY}, row=row, col=1)  # pyright: ignore[reportArgumentType]
    theme.finish(figure, evaluation.policy.dates)
    for row, title, form in ((1, "Sharpe ratio", ".2~f"), (2, "volatility", PERCENT), (3, "beta", ".3~f")):
        figure.update_yaxes(title=title, tickformat=form, row=row, col=1)
    figure.update_xaxes(type="date", row=3, col=1)
    figure.update_layout(legend={"y": -0.09})
    note = (
        f"Over the {found.window} {unit_of(evaluation.policy.year)}s up to each date, annualised, net of costs. "
        f"Bottom: the policy's beta on {name}; at 1 it moves with it."
    )
    return Chart("rolling", "Rolling Sharpe ratio, volatility and beta", note, figure, 560)


def drawdown_table(evaluation: Evaluation) -> Table:
    """The policy's deepest drawdowns, and what its rivals returned from the peak to the trough of each."""
    policy, rivals = evaluation.policy, rivals_shown(evaluation)
    unit, dates = unit_of(policy.year), policy.dates

    def against(rival: Track) -> Field[Drawdown]:
        nav = np.append(1.0, rival.nav)  # before each row
        column = Column(rival.name, "% to the lowest")
        return column, lambda one: signed(nav[one.trough + 1] / nav[one.first] - 1.0, 1, 100)

    fields: list[Field[Drawdown]] = [
        (Column("From", "first loss", numeric=False), lambda one: Cell(str(dates[one.first]))),
        (Column("Lowest", numeric=False), lambda one: Cell(str(dates[one.trough]))),
        (
            Column("Recovered", numeric=False),
            lambda one: Cell(str(dates[one.last + 1]) if one.recovered else "not yet"),
        ),
        (Column("Depth", "%"), lambda one: number(one.depth, 1, 100)),
        *map(against, rivals),
        (Column("Falling", f"{unit}s"), lambda one: number(one.falling, 0)),
        (
            Column("Recovering", f"{unit}s"),
            lambda one: number(one.length - one.falling, 0) if one.recovered else Cell("open"),
        ),
    ]
    return table_of("drawdown-table", deepest_drawdowns(policy, 5), fields)


def relative_table(evaluation: Evaluation) -> Table:
    """Every strategy against 1/N, and the policy against the user's own benchmark where there is one."""
    name, policy, cash = evaluation.verdict.opponent, evaluation.policy, evaluation.cash
    tracks = {policy.name: policy}
    rivals = {}
    if evaluation.benchmark is not None:
        own = evaluation.baselines[evaluation.benchmark.opponent]
        tracks[f"policy against {own.name}"] = policy
        rivals[f"policy against {own.name}"] = own
    tracks |= {key: track for key, track in evaluation.baselines.items() if key != name}
    found = {key: relative(track, rivals.get(key, evaluation.baselines[name])) for key, track in tracks.items()}
    fields: list[Field[str]] = [
        (Column("Strategy", f"against {name}", numeric=False), Cell),
        (Column("Beta"), lambda key: number(found[key].beta, 2)),
        (Column("Correlation"), lambda key: number(found[key].correlation, 2)),
        (Column("Active return", "% a year"), lambda key: signed(found[key].active_return, 1, 100)),
        (Column("Tracking error", "% a year"), lambda key: number(found[key].tracking_error, 1, 100)),
        (Column("Information ratio", "a year"), lambda key: signed(found[key].information_ratio, 2)),
        (Column("Up capture", "% of its gains"), lambda key: number(found[key].up_capture, 0, 100)),
        (Column("Down capture", "% of its losses"), lambda key: number(found[key].down_capture, 0, 100)),
        (Column("Skew", f"of {unit_of(policy.year)}s"), lambda key: number(skewness(tracks[key].net), 2)),
    ]
    if cash.any():
        over = Column("Sharpe over cash", "ratio")
        fields.append((over, lambda key: number(metrics.sharpe_ratio(tracks[key].net - cash, policy.year), 2)))
    of_policy = {key: "policy" for key, track in tracks.items() if track is policy}
    return table_of("relative-table", tracks, fields, lambda key: of_policy.get(key, ""), sortable=True)


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FULL_TINT = 0.08
"""Return of a month, either way, at which a cell has its full colour."""


def year_table(evaluation: Evaluation) -> Table:
    """One row per calendar year: returns, the lead over each rival, deepest fall, turnover and cost of the policy."""
    policy, rivals = evaluation.policy, rivals_shown(evaluation)
    years, ours = period_returns(policy.dates, policy.net, "Y")
    theirs = [period_returns(rival.dates, rival.net, "Y")[1] for rival in rivals]
    fall = np.array(
        [-metrics.underwater(policy.nav)[policy.dates.astype("datetime64[Y]") == year].min() for year in years]
    )
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
    return replace(signed(value, 1, 100), tone="beats" if value > 0 else "worse" if value < 0 else "")


def _heat(value: float | None) -> Cell:
    return replace(signed(value, 1, 100), tint=float(np.clip((value or 0.0) / FULL_TINT, -1.0, 1.0)))


LARGEST = 10
EACH_WAY = 5
HELD = 5e-4
"""Weight from which a name counts as held."""


def holding_tables(evaluation: Evaluation, sector_of: Mapping[str, str]) -> tuple[Table, Table]:
    """The largest holdings, and the largest active weights either way, as of the window's last decision."""
    opponent = evaluation.verdict.opponent
    own, theirs = evaluation.policy.weights[-1], evaluation.baselines[opponent].weights[-1]
    active = own - theirs
    largest = [i for i in np.argsort(-own, kind="stable").tolist() if own[i] > 0][:LARGEST]
    order = np.argsort(-active, kind="stable").tolist()
    over = [i for i in order if active[i] > 0][:EACH_WAY]
    under = [i for i in order if active[i] < 0][-EACH_WAY:]
    reach = float(np.abs(active).max()) or 1.0

    def row(i: int, group: bool = False) -> Row:
        name = evaluation.assets[i]
        tinted = replace(signed(active[i], 1, 100), tint=float(active[i] / reach))
        sector = (Cell(sector_of.get(name, "")),) if sector_of else ()
        return Row((Cell(name), *sector, number(own[i], 1, 100), number(theirs[i], 1, 100), tinted), group=group)

    columns = (
        Column("Name", numeric=False),
        *((Column("Sector", numeric=False),) if sector_of else ()),
        Column("Weight", "%"),
        Column(opponent, "%"),
        Column("Active", "points"),
    )
    beside = tuple(row(i, group=k == 0) for part in (over, under) for k, i in enumerate(part))
    return Table("holdings-table", columns, tuple(row(i) for i in largest)), Table("active-table", columns, beside)


def holdings_says(evaluation: Evaluation) -> str:
    """Names held, how concentrated they are, cash, and the active share."""
    opponent = evaluation.verdict.opponent
    own, theirs = evaluation.policy.weights[-1], evaluation.baselines[opponent].weights[-1]
    risky, share = own[:-1], 0.5 * float(np.abs(own - theirs).sum())
    held, ten = int((risky > HELD).sum()), 100 * np.sort(risky)[-10:].sum()
    return (
        f"Weights behind the return of {evaluation.policy.dates[-1]}: {held} names, the ten largest {ten:.0f} % of "
        f"wealth, cash {100 * own[-1]:.1f} %. Active share against {opponent}: {100 * share:.0f} %."
    )


def risk_chart(names: tuple[NamePart, ...], sector_of: Mapping[str, str]) -> Chart:
    """Share of the window's volatility by name, the largest first, or by sector where sectors are known."""
    whole = sum(one.risk for one in names) or 1.0
    parts: dict[str, tuple[float, float]] = {}
    for one in names:
        key = sector_of.get(one.name, one.name)
        share, weight = parts.get(key, (0.0, 0.0))
        parts[key] = (share + one.risk / whole, weight + one.weight)
    shown = sorted(parts, key=lambda name: -parts[name][0])[: 2 * LARGEST][::-1]
    figure = theme.blank()
    for label, field, colour in (("mean weight", 1, "#B8BDC2"), ("share of risk", 0, BLUE)):
        figure.add_bar(
            x=theme.numbers((parts[name][field] for name in shown), 4), y=[theme.text(name) for name in shown],
            orientation="h", name=label, marker={"color": colour, "line": {"width": 0}}, hovertemplate="%{x:.1%}",
        )  # fmt: skip
    theme.finish(figure)
    height = 110 + 30 * len(shown)
    figure.update_layout(barmode="group", hovermode="y unified", legend={"traceorder": "reversed", "y": -25 / height})
    figure.update_xaxes(tickformat=".0%")
    what = "sector" if sector_of else "name"
    note = f"Part of the volatility over the window that each {what} carried, beside its mean weight."
    return Chart("risk", f"Risk by {what}", note, figure, height)
