"""A user's CSV from pretraining to the report: what may not be traded is not, what ends is closed with its cost."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import pytest

import finflow
from finflow.stages.results import EvaluateResult

from .conftest import DELISTED, LISTED, TINY, TUNE


@pytest.fixture(scope="module")
def evaluated(own_prices: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateResult:
    root = tmp_path_factory.mktemp("outputs")
    place = [f"output_root={root}"]
    data = [*place, "env=csv", f"env.path='{own_prices}'", *TINY]
    finflow.pretrain(finflow.load("pretrain", data))
    tuned = finflow.finetune(finflow.load("finetune", [*data, *TUNE]))
    return finflow.evaluate(
        finflow.load("evaluate", [*place, f"run='{tuned.run_dir}'", "evaluation.bootstrap_samples=200"])
    )


def ledger(result: EvaluateResult) -> list[dict[str, str]]:
    with (result.run_dir / "ledger.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_warnings_name_the_stale_and_the_delisted_ticker(evaluated: EvaluateResult) -> None:
    text = "\n".join(evaluated.evaluation.warnings)
    assert f"{LISTED}: equal closes from 2015-01-05" in text
    assert f"{DELISTED}: last price on " in text


def test_nothing_is_bought_before_it_lists(evaluated: EvaluateResult, own_prices: Path) -> None:
    with own_prices.open(newline="") as file:
        prices = list(csv.DictReader(file))
    listing = next(b["Date"] for a, b in pairwise(prices) if a[LISTED] != b[LISTED])
    trades = [row for row in ledger(evaluated) if row["ticker"] == LISTED]
    assert trades
    assert min(row["date"] for row in trades) > listing


def test_a_delisting_is_closed_once_with_its_cost(evaluated: EvaluateResult, own_prices: Path) -> None:
    with own_prices.open(newline="") as file:
        last = max(row["Date"] for row in csv.DictReader(file) if row[DELISTED])
    after = [row for row in ledger(evaluated) if row["ticker"] == DELISTED and row["date"] > last]
    assert len(after) == 1
    (closing,) = after
    assert closing["reason"].startswith("closed")
    assert float(closing["weight_before"]) > 0
    assert float(closing["weight_after"]) == 0
    assert float(closing["cost"]) == pytest.approx(0.0015 * float(closing["weight_before"]), rel=1e-12)
    assert evaluated.evaluation.policy.closures == 1


def test_files_recompute_to_the_numbers_of_the_report(evaluated: EvaluateResult) -> None:
    with (evaluated.run_dir / "returns.csv").open(newline="") as file:
        nets = [float(row["policy"]) for row in csv.DictReader(file)]
    nav = 1.0
    for net in nets:
        nav *= 1.0 + net
    summary = json.loads((evaluated.run_dir / "summary.json").read_text())
    assert nav == pytest.approx(summary["metrics"]["policy"]["final_nav"], rel=1e-12)
    page = evaluated.report.read_text()
    assert evaluated.evaluation.verdict.outcome in page
    assert LISTED in page


def test_the_next_decision_is_printed_for_the_last_day_of_the_data(evaluated: EvaluateResult) -> None:
    root = evaluated.run_dir.parents[2]
    decided = finflow.decide(finflow.load("decide", [f"output_root={root}"]))
    assert decided.date == "2020-05-15"
    assert sum(trade.target for trade in decided.trades) == pytest.approx(1.0, abs=1e-9)
    assert {trade.asset for trade in decided.trades if trade.target > 0}.isdisjoint({DELISTED})
    with decided.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["asset"] for row in rows] == [trade.asset for trade in decided.trades]
