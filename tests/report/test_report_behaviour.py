"""The sections on years, months, drawdowns, rivals and holdings, each cell against the tracks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from finflow.evaluation.backtest import BENCHMARK
from finflow.evaluation.metrics import measure
from finflow.evaluation.result import Evaluation, Track
from finflow.explanations.performance import NamePart
from finflow.report.behaviour import (
    drawdown_table,
    holding_tables,
    month_says,
    month_table,
    relative_table,
    risk_chart,
    rolling_chart,
    year_table,
)
from finflow.report.figures import equity_chart, gate_chart, trading_chart
from finflow.report.page import RunFacts, render
from finflow.report.tables import DASH, Row, Table


def texts(row: Row) -> list[str]:
    return [cell.text for cell in row.cells]


def column(table: Table, label: str) -> list[str]:
    at = [one.label for one in table.columns].index(label)
    return [row.cells[at].text for row in table.rows]


def with_benchmark(evaluation: Evaluation) -> Evaluation:
    """The evaluation with an index of its own, which is HRP before cost."""
    net = evaluation.baselines["HRP"].gross
    unknown, zero = np.zeros((len(net), 0)), np.zeros(len(net))
    own = Track(BENCHMARK, evaluation.policy.dates, unknown, unknown, zero, zero, net, net, 0)
    verdict = replace(evaluation.verdict, opponent=BENCHMARK, outcome="WORSE THAN", difference=-0.6, low=-1, high=-0.2)
    return replace(
        evaluation,
        baselines={**evaluation.baselines, BENCHMARK: own},
        metrics={**evaluation.metrics, BENCHMARK: measure(net, zero, unknown)},
        benchmark=verdict,
    )


def frame(evaluation: Evaluation) -> pd.DataFrame:
    tracks = {"policy": evaluation.policy, **evaluation.baselines}
    return pd.DataFrame({k: t.net for k, t in tracks.items()}, index=pd.to_datetime(evaluation.policy.dates))


def test_ticks_of_a_short_window_have_the_decimals_that_they_need(evaluation: Evaluation) -> None:
    """An axis whose span is not fixed; "+.0%" wrote +0 % twice where a month moved by less than 2 %."""
    charts = (equity_chart(evaluation), rolling_chart(evaluation), trading_chart(evaluation), gate_chart(evaluation))
    formats: list[str] = []
    for chart in charts:
        assert chart is not None
        axes = chart.figure.to_dict()["layout"]
        formats += [
            axis["tickformat"]
            for name, axis in axes.items()
            if name.startswith("yaxis") and "tickformat" in axis and "range" not in axis
        ]
    assert len(formats) == 7
    assert all("~" in form for form in formats)


def test_years_and_months_are_those_of_pandas(evaluation: Evaluation) -> None:
    net = frame(evaluation)
    years = 100 * ((1 + net).resample("YE").prod() - 1)
    table = year_table(evaluation)
    assert column(table, "Year") == [str(day.year) for day in years.index] == ["2018", "2019", "2020", "2021", "2022"]
    assert column(table, "Policy") == [f"{x:+.1f}" for x in years["policy"]]
    assert column(table, "1/N monthly") == [f"{x:+.1f}" for x in years["1/N monthly"]]
    assert column(table, "Lead") == [f"{x:+.1f}" for x in years["policy"] - years["1/N monthly"]]
    assert [row.cells[0].note for row in table.rows] == ["", "", "", "", "Jan to Oct"]
    turnover = pd.Series(evaluation.policy.turnover, net.index).resample("YE").sum()
    assert column(table, "Turnover") == [f"{x:.2f}" for x in turnover]
    months = 100 * ((1 + net["policy"]).resample("ME").prod() - 1)
    shown = [text for row in month_table(evaluation).rows for text in texts(row)[1:13]]
    assert shown == [f"{round(x, 1) + 0.0:+.1f}" if round(x, 1) else "0.0" for x in months] + [DASH] * 2
    heat = month_table(evaluation).rows[0].cells[1:13]
    assert [np.sign(cell.tint) for cell in heat] == [np.sign(x) for x in months[:12]]
    best = months.idxmax()
    assert f"{int((months > 0).sum())} of 58 months gained. Best: {best:%Y-%m}, {months.max():+.1f} %" in month_says(
        evaluation
    )


def test_drawdowns_have_dates_and_what_the_rival_returned(evaluation: Evaluation) -> None:
    table, net = drawdown_table(evaluation), frame(evaluation)
    assert len(table.rows) == 5
    for row in table.rows:
        first, lowest, recovered, depth, theirs, falling, recovering = texts(row)
        spell = net.loc[first:lowest]
        assert depth == f"{-100 * ((1 + spell['policy']).prod() - 1):.1f}"
        assert theirs == f"{100 * ((1 + spell['1/N monthly']).prod() - 1):+.1f}"
        assert int(falling) == len(spell)
        if recovered == "not yet":
            assert recovering == "open"
        else:
            assert int(recovering) == len(net.loc[lowest:recovered]) - 1
            assert (1 + net["policy"].loc[first:recovered]).prod() >= 1
    assert column(table, "Depth") == sorted(column(table, "Depth"), key=float, reverse=True)


def test_figures_against_a_rival_stand_in_their_columns(evaluation: Evaluation) -> None:
    net = frame(evaluation)
    table = relative_table(evaluation)
    assert column(table, "Strategy") == [name for name in evaluation.metrics if name != "1/N monthly"]
    policy, rival = net["policy"], net["1/N monthly"]
    row = dict(zip((c.label for c in table.columns), texts(table.rows[0]), strict=True))
    assert row["Beta"] == f"{policy.cov(rival) / rival.var():.2f}"
    assert row["Tracking error"] == f"{100 * (policy - rival).std() * 252**0.5:.1f}"
    assert row["Skew"] == f"{policy.skew():.2f}"
    over = policy - evaluation.cash
    assert row["Sharpe over cash"] == f"{over.mean() / over.std() * 252**0.5:.2f}"
    no_yield = relative_table(replace(evaluation, cash=np.zeros(len(policy))))
    assert "Sharpe over cash" not in [c.label for c in no_yield.columns]


def test_a_benchmark_of_ones_own_is_a_line_a_column_and_a_verdict(evaluation: Evaluation, brief: RunFacts) -> None:
    judged = with_benchmark(evaluation)
    page = render(judged, brief)
    head = page[page.index('id="verdict"') : page.index("</header>")]
    assert "Against your own benchmark:</b> <strong>WORSE THAN benchmark</strong> (difference -0.60" in head
    assert head.index("INDISTINGUISHABLE FROM 1/N") < head.index("WORSE THAN benchmark")
    strip = page[page.index('id="figures"') : page.index("<nav")]
    assert strip.count("<span>benchmark <b>") == 8
    assert BENCHMARK in {trace["name"] for trace in equity_chart(judged).figure.to_plotly_json()["data"]}
    assert BENCHMARK in [c.label for c in year_table(judged).columns]
    assert BENCHMARK in [c.label for c in drawdown_table(judged).columns]
    assert column(relative_table(judged), "Strategy")[:2] == ["policy", "policy against benchmark"]
    assert judged.metrics[BENCHMARK].effective_assets is None
    assert "own-benchmark" not in render(evaluation, brief).split("<script>")[0]


def test_holdings_are_the_last_weights_and_their_lead(evaluation: Evaluation) -> None:
    sectors = dict.fromkeys(evaluation.assets[:-1], "all")
    largest, active = holding_tables(evaluation, sectors)
    own = pd.Series(evaluation.policy.weights[-1], evaluation.assets)
    lead = own - evaluation.baselines["1/N monthly"].weights[-1]
    assert column(largest, "Name") == own.nlargest(10).index.tolist()
    assert column(largest, "Weight") == [f"{100 * x:.1f}" for x in own.nlargest(10)]
    assert column(largest, "Sector") == ["all" if name != "CASH" else "" for name in column(largest, "Name")]
    assert column(active, "Name") == [*lead.nlargest(5).index, *lead.nsmallest(5).index[::-1]]
    assert column(active, "Active") == [f"{100 * lead[name]:+.1f}" for name in column(active, "Name")]
    assert [row.group for row in active.rows] == [True, *[False] * 4, True, *[False] * 4]
    assert "Sector" not in [c.label for c in holding_tables(evaluation, {})[0].columns]


def test_risk_is_shared_out_among_names_or_sectors() -> None:
    names = tuple(NamePart(n, 0, 0, 0, r, w) for n, r, w in (("A", 0.06, 0.2), ("B", 0.03, 0.3), ("C", 0.01, 0.4)))
    by_name = risk_chart(names, {}).figure.to_plotly_json()["data"][1]
    assert (list(by_name["y"]), list(by_name["x"])) == (["C", "B", "A"], pytest.approx([0.1, 0.3, 0.6]))
    by_sector = risk_chart(names, {"A": "x", "B": "y", "C": "y"}).figure.to_plotly_json()["data"]
    assert (list(by_sector[1]["y"]), list(by_sector[1]["x"])) == (["y", "x"], pytest.approx([0.4, 0.6]))
    assert list(by_sector[0]["x"]) == pytest.approx([0.7, 0.2])


def test_a_window_under_a_quarter_shows_what_it_returned_in_all(
    make_evaluation: Callable[..., Evaluation], brief: RunFacts
) -> None:
    short = make_evaluation(60, ("A", "B"))
    assert rolling_chart(make_evaluation(40, ("A", "B"))) is None
    strip = render(short, brief)
    strip = strip[strip.index('id="figures"') : strip.index("<nav")]
    assert f"<strong>{100 * (short.metrics['policy'].final_nav - 1):+.1f}</strong> <small>% in all</small>" in strip
    assert "Return</dt>" in strip
    assert strip.count("% a year") == 1  # the volatility's
