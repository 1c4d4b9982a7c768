"""Markets of other calendars from pretraining to the report, with figures that are computed again from its tables."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.data.market import Calendar
from finflow.stages.results import EvaluateResult

from .conftest import TINY, TUNE

KINDS = {
    "D": ("seven days a week", 365, 1500, "2010-01-01"),
    "W-FRI": ("weekly", 52, 420, "2010-01-01"),
    "ME": ("monthly", 12, 600, "1935-01-31"),
}
"""pandas' name -> what `run.json` says, rows a year, rows, first day."""


def write_market(path: Path, frequency: str) -> None:
    *_, rows, first = KINDS[frequency]
    days = pd.date_range(first, periods=rows, freq=frequency)
    steps = np.random.default_rng(1).normal(0.0005, 0.02, (rows, 4))
    pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), days, ["AA", "BB", "CC", "DD"]).to_csv(path, index_label="Date")


@pytest.fixture(scope="module", params=KINDS)
def judged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, EvaluateResult, Path]:
    root = tmp_path_factory.mktemp("calendar")
    path = root / "prices.csv"
    write_market(path, request.param)
    place = [f"output_root={root / 'out'}"]
    data = [*place, "env=csv", f"env.path='{path}'", *TINY]
    finflow.pretrain(finflow.load("pretrain", data))
    tuned = finflow.finetune(finflow.load("finetune", [*data, *TUNE]))
    settings = [*place, f"run='{tuned.run_dir}'", "evaluation.bootstrap_samples=200"]
    return request.param, finflow.evaluate(finflow.load("evaluate", settings)), tuned.run_dir


def column(path: Path, name: str) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


def test_figures_of_the_summary_are_those_of_its_tables(judged: tuple[str, EvaluateResult, Path]) -> None:
    kind, result, _ = judged
    year = KINDS[kind][1]
    net = column(result.run_dir / "returns.csv", "policy")
    nav = np.concatenate([[1.0], np.cumprod(1 + net)])
    worst = np.sort(net)[: int(np.ceil(0.05 * len(net)))]
    found = result.evaluation.metrics["policy"]
    assert found.annual_return == pytest.approx(nav[-1] ** (year / len(net)) - 1, abs=1e-9)
    assert found.volatility == pytest.approx(net.std(ddof=1) * year**0.5, abs=1e-9)
    assert found.sharpe == pytest.approx(net.mean() / net.std(ddof=1) * year**0.5, abs=1e-9)
    assert found.max_drawdown == pytest.approx((1 - nav / np.maximum.accumulate(nav)).max(), abs=1e-9)
    assert found.cvar95 == pytest.approx(-worst.mean(), abs=1e-9)
    assert found.turnover == pytest.approx(result.evaluation.policy.turnover[1:].mean() * year, abs=1e-9)
    other = result.evaluation.verdict.opponent
    theirs = column(result.run_dir / "returns.csv", other)
    gain = found.sharpe - theirs.mean() / theirs.std(ddof=1) * year**0.5
    assert result.evaluation.verdict.difference == pytest.approx(gain, abs=1e-9)


def test_the_calendar_stands_in_every_record_and_on_the_page(judged: tuple[str, EvaluateResult, Path]) -> None:
    kind, result, tuned = judged
    days, year, *_ = KINDS[kind]
    for folder in (tuned, result.run_dir):
        assert json.loads((folder / "run.json").read_text())["calendar"] == {"days": days, "rows_a_year": year}
    unit = {"D": "days", "W-FRI": "weeks", "ME": "months"}[kind]
    one = unit.removesuffix("s")
    page = result.report.read_text()
    head = page[page.index('class="eyebrow"') : page.index("</h1>")]
    assert f"{days}, {year} {unit} a year" in head
    cards = page[page.index('id="s-explained"') :]
    assert f"Next {one}" in cards
    assert f"CVaR 95 % a {one} on the last" in cards
    assert one == "day" or "Next day" not in cards
    assert f"over the same {unit}. {year} {unit} a year" in page
    for told in (f"% a {one}", f"% of {unit}"):
        assert page.count(told) >= 1
    assert unit == "days" or "% a day" not in page[page.index('id="s-metrics"') : page.index('id="s-weights"')]


def test_windows_of_time_are_rows_of_the_calendar(judged: tuple[str, EvaluateResult, Path]) -> None:
    kind, _, tuned = judged
    _, year, *_ = KINDS[kind]
    record = json.loads((tuned / "run.json").read_text())["fold"]
    purge = pd.date_range(record["train"][1], record["validation"][0], freq=kind)
    assert len(purge) - 1 == Calendar(year=year).rows(21) + 1


def test_the_year_can_be_said(tmp_path: Path) -> None:
    """0.5 % a row is one Sharpe ratio by 252 rows, and another by 365."""
    write_market(tmp_path / "p.csv", "D")
    data = ["env=csv", f"env.path='{tmp_path / 'p.csv'}'"]
    from finflow.data.build import build_market

    assert build_market(finflow.load("pretrain", data).env).calendar.year == 365
    said = build_market(finflow.load("pretrain", [*data, "env.periods_per_year=252"]).env)
    assert said.calendar.year == 252
    assert said.calendar.name == "seven days a week"


def test_decide_holds_what_is_not_quoted_yet(judged: tuple[str, EvaluateResult, Path]) -> None:
    kind, _, tuned = judged
    path = tuned.parents[3] / "prices.csv"
    table = pd.read_csv(path, index_col=0, parse_dates=True)
    last = table.index[-1]
    table.loc[pd.date_range(last, periods=2, freq=kind)[1]] = [np.nan, *table.iloc[-1, 1:]]
    table.to_csv(path)
    words = [f"output_root={tuned.parents[2]}", f"run='{tuned}'"]
    decided = finflow.decide(finflow.load("decide", words))
    trades = {trade.asset: trade for trade in decided.trades}
    assert trades["AA"].held > 0.01
    assert trades["AA"].target == pytest.approx(trades["AA"].held, abs=1e-12)
    assert {name for name, trade in trades.items() if trade.note} == {"AA"}
    assert "no price yet" in decided.table.read_text()
    before = finflow.decide(finflow.load("decide", [*words, f"env.end={last.date()}"]))
    assert before.date == str(last.date())
    assert not any(trade.note for trade in before.trades)
