"""What `evaluate` prints, in the units of the report."""

from dataclasses import replace

import numpy as np
import pytest

from finflow.cli import tables
from finflow.evaluation.metrics import measure
from finflow.stages.results import Trade


def test_figures_are_printed_in_the_units_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    days = np.full(252, 0.001)
    days[::2] = -0.0005
    found = measure(days, np.full(252, 0.01), np.array([[0.5, 0.5]] * 252))
    tables.show_metrics({"policy": found, "1/N daily": replace(found, sharpe=None)}, 252)
    text = capsys.readouterr().out
    printed = [line.split() for line in text.splitlines()]
    (policy,) = [words for words in printed if "policy" in words]
    assert found.annual_return is not None
    assert f"{100 * found.annual_return:.1f}" in policy
    assert f"{found.turnover:.2f}" in policy
    (other,) = [words for words in printed if "daily" in words]
    assert "–" in other
    assert "% a year" in text


def test_targets_are_printed_where_no_trade_is_large(capsys: pytest.CaptureFixture[str]) -> None:
    trades = [Trade("AAA", 0.3, 0.3004), Trade("BBB", 0.2, 0.25), Trade("CCC", 0.0, 0.0), Trade("CASH", 0.5, 0.4496)]
    tables.show_trades("Decision", trades, 0.001)
    said = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in said.splitlines() if "│" in line]
    assert rows == [
        ["AAA", "0.3000", "0.3004"],
        ["BBB", "0.2000", "0.2500", "+0.0500"],
        ["CASH", "0.5000", "0.4496", "-0.0504"],
    ]
    assert "Not traded: 2 names whose trade is below min_trade=0.001" in said


def test_cash_moves_only_where_a_name_is_traded(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_trades("Decision", [Trade("AAA", 0.3, 0.3004), Trade("CASH", 0.7, 0.6996)], 0.001)
    (cash,) = [line for line in capsys.readouterr().out.splitlines() if "CASH" in line]
    assert cash.replace("│", " ").split() == ["CASH", "0.7000", "0.6996"]


def test_nothing_is_cut_off_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_table("Wide", [f"column {at}" for at in range(9)], [["x", *["INDISTINGUISHABLE FROM no_cql"] * 8]])
    assert "…" not in capsys.readouterr().out
