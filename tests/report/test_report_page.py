"""What the page says and how it is written, without a browser."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finflow.errors import StorageError
from finflow.evaluation.metrics import diagnostics_says
from finflow.evaluation.result import Evaluation, Verdict
from finflow.report import figures, theme
from finflow.report.learning_curves import FINETUNE, PRETRAIN, curves, rolling_mean
from finflow.report.page import RunFacts, render, write_report
from finflow.report.tables import DASH, diagnostics_table, fact_table, metric_table, number
from finflow.report.verdict import verdict_views

HOSTILE = "<script>alert(1)</script>"


def data_of(page: str) -> dict[str, dict[str, list[dict[str, object]]]]:
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_is_one_small_file_without_addresses_of_others(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert page_file.stat().st_size < 8e6
    own = re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)  # all but the inlined library
    assert len(own) < 2e6
    assert page.count("plotly.js v") == 1
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", own)
    assert "http" not in own.replace("http-equiv", "")
    assert [p.name for p in page_file.parent.iterdir()] == ["report.html"]


def test_the_same_inputs_give_the_same_bytes(
    page_file: Path, make_evaluation: Callable[..., Evaluation], facts: RunFacts
) -> None:
    assert render(make_evaluation(), facts) == page_file.read_text(encoding="utf-8")


def test_the_verdict_comes_first_and_word_for_word(page_file: Path, evaluation: Evaluation) -> None:
    body = page_file.read_text(encoding="utf-8").split("<body>")[1]
    heading = re.search(r"<h1>(.*?)</h1>", body, re.DOTALL)
    assert heading
    assert re.sub(r"<[^>]+>", "", heading[1]) == evaluation.verdict.line()
    order = [body.index(f'id="{key}"') for key in (
        "verdict", "figures", "s-equity", "s-years", "s-sure", "s-metrics", "s-rolling", "s-drawdowns",
        "s-relative", "s-holdings", "s-weights", "s-gate", "s-reality", "s-regimes",
        "s-stress", "s-costs", "s-training", "s-trading", "s-experts", "s-provenance", "s-config")]  # fmt: skip
    assert order == sorted(order)
    assert "Test window opened <b>3 times</b>" in body
    for warning in evaluation.warnings:
        assert f"<li>{warning}</li>" in body


def test_markup_in_a_name_stays_text(page_file: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not set("<>&") & set(page.split('id="chart-data">')[1].split("</script>")[0])
    weights = data_of(page)["weights"]["data"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in {trace["name"] for trace in weights}


def test_markup_in_warnings_config_and_provenance_stays_text(small: Evaluation, brief: RunFacts) -> None:
    hostile = "</pre></script><img src=x onerror=alert(1)>"
    page = render(
        replace(small, warnings=(hostile,)),
        replace(brief, config=hostile, title=hostile, provenance={hostile: hostile}, next_command=hostile),
    )
    assert "<img" not in page.split("<script>")[0]


@pytest.mark.parametrize(
    ("outcome", "low", "high", "words"),
    [
        ("BEATS", 0.1, 0.9, "lies above zero"),
        ("WORSE THAN", -0.9, -0.1, "lies below zero"),
        ("INDISTINGUISHABLE FROM", -0.2, 0.6, "cannot tell the two apart"),
    ],
)
def test_the_meaning_follows_the_outcome(
    evaluation: Evaluation, outcome: str, low: float, high: float, words: str
) -> None:
    verdict = Verdict(outcome, (low + high) / 2, low, high, "1/N monthly", 1000, 63)  # pyright: ignore
    view, *_ = verdict_views(replace(evaluation, verdict=verdict))
    assert words in view.meaning
    assert f"{abs(low + high) / 2:.2f} {'above' if low + high > 0 else 'below'}" in view.meaning
    assert view.interval is not None
    assert view.interval.zero == 50
    assert view.interval.low < view.interval.difference < view.interval.high
    assert (view.interval.low > 50) == (outcome == "BEATS")


def test_an_undefined_verdict_is_said_and_not_drawn(small: Evaluation, brief: RunFacts) -> None:
    nan = float("nan")
    verdict = Verdict("INDISTINGUISHABLE FROM", nan, nan, nan, "1/N monthly", 1000, 63)
    broken = replace(small, verdict=verdict, scaled_verdict=replace(verdict, scale=nan))
    assert all(view.interval is None for view in verdict_views(broken) if view)
    assert "undefined" in render(broken, brief)


def test_numbers_are_rounded_and_undefined_ones_are_a_dash() -> None:
    assert number(0.12345, 1, 100).text == "12.3"
    assert number(-0.0001, 2).text == "0.00"
    assert number(1234.5, 0).text == "1,234"
    assert number(None, 2).text == number(float("nan"), 2).text == DASH
    assert number(None, 2).value is None


def test_the_metric_table_says_what_the_evaluation_says(evaluation: Evaluation) -> None:
    table = metric_table(evaluation)
    labels = [column.label for column in table.columns]
    assert [row.cells[0].text for row in table.rows] == list(evaluation.metrics)
    assert [row.mark for row in table.rows].count("policy") == 1
    for row in table.rows:
        metrics = evaluation.metrics[row.cells[0].text]
        assert row.cells[labels.index("Sharpe")].value == metrics.sharpe
        assert row.cells[labels.index("Return")].text == f"{100 * (metrics.annual_return or 0):.1f}"
    hold = next(row for row in table.rows if row.cells[0].text == "buy and hold")
    assert hold.cells[labels.index("Tail ratio")].text == DASH


def test_a_diagnostic_stands_beside_its_change(evaluation: Evaluation) -> None:
    rows = diagnostics_table(evaluation).rows
    assert [[cell.text for cell in row.cells] for row in rows] == [
        ["Experts in use", "3.71", "-1.25"],  # exp(1.31), and that minus exp(1.60)
        ["What two experts hold otherwise", "18.2", "+2.1"],
    ]
    one_line = "experts in use 3.71 (-1.25 since phase 1), what two experts hold otherwise 18.2 % (+2.1 since phase 1)"
    assert diagnostics_says(evaluation.diagnostics) == one_line
    alone = replace(evaluation, diagnostics={"gate_entropy": 1.0})
    assert diagnostics_table(alone).rows[0].cells[2].text == DASH


def test_nested_facts_get_dotted_names() -> None:
    rows = fact_table("k", {"a": {"b": 1, "c": {"d": None}}, "e": ["x", "y"]}).rows
    assert [(row.cells[0].text, row.cells[1].text) for row in rows] == [("a.b", "1"), ("a.c.d", DASH), ("e", "x, y")]


def test_curves_end_where_the_metrics_do(evaluation: Evaluation) -> None:
    figure = figures.equity_chart(evaluation).figure.to_plotly_json()
    top = {trace["name"]: trace["y"] for trace in figure["data"] if trace.get("showlegend") is not False}
    below = {trace["name"]: trace["y"] for trace in figure["data"] if trace.get("yaxis") == "y2"}
    assert set(top) == set(evaluation.metrics)
    for name, metrics in evaluation.metrics.items():
        assert top[name][-1] == pytest.approx(metrics.final_nav, abs=1e-4)
        assert -min(below[name]) == pytest.approx(metrics.max_drawdown, abs=1e-4)


def test_a_loss_on_the_first_day_is_a_drawdown(evaluation: Evaluation) -> None:
    falling = replace(evaluation.policy, net=np.r_[-0.5, 0.1, np.zeros(len(evaluation.policy.net) - 2)])
    data = figures.equity_chart(replace(evaluation, policy=falling)).figure.to_plotly_json()["data"]
    (below,) = [trace["y"] for trace in data if trace["name"] == "policy" and trace.get("yaxis") == "y2"]
    assert below[:2] == [-0.5, -0.45]


def test_weights_and_gate_stack_to_one(evaluation: Evaluation) -> None:
    for chart in (figures.weights_chart(evaluation), figures.gate_chart(evaluation)):
        areas = [t["y"] for t in chart.figure.to_plotly_json()["data"] if t.get("stackgroup")]
        np.testing.assert_allclose(np.sum(areas, axis=0), 1.0, atol=1e-3)
    data = figures.weights_chart(evaluation).figure.to_plotly_json()["data"]
    names = [t["name"] for t in data]
    assert names[0] == "CASH"
    held = evaluation.policy.weights.mean(0)[:-1]
    assert names[-1] == f"{len(held) - (len(names) - 2)} other names"
    assert np.sort(held)[: len(held) - (len(names) - 2)].sum() < figures.SMALL_REST
    looks = {(t["fillcolor"], (t.get("fillpattern") or {}).get("shape")) for t in data if t.get("stackgroup")}
    assert len(looks) == len(names)


def test_every_line_of_the_equity_chart_has_a_dash_of_its_own(evaluation: Evaluation) -> None:
    data = figures.equity_chart(evaluation).figure.to_plotly_json()["data"]
    dashes = [trace["line"].get("dash", "solid") for trace in data if trace.get("showlegend") is not False]
    assert len(set(dashes)) == len(dashes) == len(evaluation.metrics)


def test_turnover_by_month_loses_nothing(evaluation: Evaluation) -> None:
    data = figures.trading_chart(evaluation).figure.to_plotly_json()["data"]
    assert sum(data[0]["y"]) == pytest.approx(evaluation.policy.turnover.sum(), abs=0.01)
    assert sum(data[1]["y"]) == pytest.approx(1e4 * evaluation.policy.cost.sum(), abs=0.5)


def test_regime_bars_cover_the_window_once(evaluation: Evaluation) -> None:
    bars = [t for t in figures.gate_chart(evaluation).figure.to_plotly_json()["data"] if t["type"] == "bar"]
    dates = evaluation.policy.dates
    total = (dates[-1] - dates[0]).astype("timedelta64[D]").astype(int) + 1
    assert sum(sum(t["x"]) for t in bars) == total * 86_400_000
    assert {t["name"] for t in bars} == {f"regime: {name}" for name in evaluation.by_regime}


def test_long_windows_are_thinned_and_keep_their_extremes() -> None:
    assert len(theme.shown_rows(theme.MAX_POINTS)) == theme.MAX_POINTS
    rows = theme.shown_rows(8000, keep=[4321])
    assert len(rows) <= theme.MAX_POINTS + 1
    assert {0, 4321, 7999} <= set(rows.tolist())


def test_rolling_mean_looks_back_only() -> None:
    np.testing.assert_allclose(rolling_mean(np.array([1.0, 2.0, 6.0, 0.0]), 2), [1.0, 1.5, 4.0, 3.0])


def test_histories_may_lack_keys_or_be_empty(small: Evaluation, brief: RunFacts) -> None:
    assert curves([], "epoch", PRETRAIN, "p") == []
    history = [{"episode": 1, "sharpe": float("nan")}, {"episode": 2, "sharpe": 0.5, "note": "text"}, {"sharpe": 1.0}]
    (chart,) = curves(history, "episode", FINETUNE, "f")
    assert list(chart.figure.to_plotly_json()["data"][0]["y"]) == [0.5]
    page = render(small, brief)
    assert "No history of pretraining" in page
    assert "No history of fine-tuning" in page


def test_returns_of_episodes_are_percent_of_wealth() -> None:
    history = [{"episode": i, "return": 0.012 * i, "sharpe": 0.5, "cvar": 0.02} for i in range(3)]
    layouts = {c.key: c.figure.to_plotly_json() for c in curves(history, "episode", FINETUNE, "f")}
    formats = {key: figure["layout"]["yaxis"].get("tickformat") for key, figure in layouts.items()}
    assert formats == {"f-return": ".3~%", "f-sharpe": None, "f-cvar": ".3~%"}
    assert layouts["f-return"]["data"][0]["hovertemplate"] == "%{y:.2%}"
    assert list(layouts["f-return"]["data"][0]["y"]) == [0.0, 0.012, 0.024]


def test_costs_that_were_not_computed_have_no_section(small: Evaluation, brief: RunFacts) -> None:
    page = render(replace(small, costs=[]), brief)
    assert "s-costs" not in page
    assert "reak-even" not in page.split("<script>")[0]


def test_a_small_universe_a_short_window_and_no_break_even(small: Evaluation, brief: RunFacts) -> None:
    small = replace(small, diagnostics={}, warnings=(), window_opened=1)
    page = render(small, brief)
    assert "no break-even cost" in page
    assert "Break-even cost: <b>20.4 bp</b>" in render(replace(small, break_even_bps=20.4), brief)
    assert "opened <b>1 time</b>." in page
    assert {t["name"] for t in data_of(page)["weights"]["data"]} == {"CASH", "A", "B"}


def test_a_page_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, evaluation: Evaluation, facts: RunFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finflow.report.page.render", lambda *_: "page")
    (tmp_path / "report.html").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "report.html", tmp_path / "file" / "report.html"):
        with pytest.raises(StorageError, match="cannot be written"):
            write_report(path, evaluation, facts)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.html"]
