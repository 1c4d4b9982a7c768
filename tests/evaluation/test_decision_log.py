"""The log of decisions: one policy's, chained; and what became of a decision, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finflow.envs.ledger import Accounting
from finflow.errors import AuditError
from finflow.evaluation.decision_log import FIELDS, by_name, decision_log, latest_by_date, realised

from .conftest import MakeMarket


def entry(**values: object) -> dict[str, object]:
    return dict.fromkeys(FIELDS) | {"date": "2020-01-01"} | values


def test_one_policy_has_one_log_whatever_the_order_of_its_seeds(tmp_path: Path) -> None:
    names = {decision_log(tmp_path, "x", weights).path.name for weights in (["a", "b"], ["b", "a"])}
    assert len(names) == 1
    assert decision_log(tmp_path, "x", ["a" * 64]).path.name == "x-aaaaaaaaaaaa.jsonl"
    assert decision_log(tmp_path, "x", ["a"]).path.name not in names


def test_a_changed_decision_is_named_by_its_line(tmp_path: Path) -> None:
    log = decision_log(tmp_path, "x", ["a"])
    for day in (1, 2):
        log.append(entry(date=f"2020-01-0{day}"))
    assert [one["date"] for one in log.entries()] == ["2020-01-01", "2020-01-02"]
    _, head = log.append(entry(date="2020-01-02", drawdown=0.5))
    assert latest_by_date(log.entries({"run": head}))["2020-01-02"]["drawdown"] == 0.5
    log.path.write_text(log.path.read_text().replace("2020-01-01", "2020-01-03"))
    with pytest.raises(AuditError, match=r"jsonl:1: the log of decisions was changed; restore it from a copy"):
        log.entries()


def test_what_became_of_a_decision_by_hand(make_market: MakeMarket) -> None:
    """Half in A at 10 bp; A then rises by 10 % and falls by 5 %, B stands still, cash earns nothing."""
    returns = np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.0], [-0.05, 0.0]])
    market = make_market(returns)
    names = market.assets
    logged = entry(
        date=str(market.dates[1]),
        held=dict(zip(names, (0.0, 0.5, 0.5), strict=True)),
        target=dict(zip(names, (0.5, 0.0, 0.5), strict=True)),
        expected={"beyond 1/N": 0.01, "beyond holding": -0.02},
    )
    found = realised(logged, market, Accounting(0.001))
    assert found is not None
    grown = 1.1 * 0.95
    assert (found.closes, found.held) == (2, pytest.approx(0.0, abs=1e-15))
    assert found.decided == pytest.approx((1 - 0.001 * 1.0) * (0.5 + 0.5 * grown) - 1)
    assert found.equal == pytest.approx((1 - 0.001 * 0.5) * (0.5 + 0.5 * grown) - 1)
    assert (found.expected_equal, found.expected_held) == (0.01, -0.02)
    assert realised(logged | {"date": str(market.dates[-1])}, market, Accounting(0.001)) is None
    assert realised(logged | {"date": "1990-01-01"}, market, Accounting(0.001)) is None
    assert realised(logged | {"held": {"A": 1.0}}, market, Accounting(0.001)) is None
    assert by_name({"B": 0.2, "A": 0.8}, ("A", "B")).tolist() == [0.8, 0.2]  # type: ignore[union-attr]


def test_a_name_that_may_not_be_traded_is_not_part_of_one_over_n(make_market: MakeMarket) -> None:
    returns = np.array([[0.0, 0.0], [0.0, 0.0], [0.2, 0.1]])
    market = make_market(returns)
    status = market.status.copy()
    status[1, 0] = 1
    cash = dict(zip(market.assets, (0.0, 0.0, 1.0), strict=True))
    logged = entry(date=str(market.dates[1]), held=cash, target=cash, expected=None)
    found = realised(logged, replace(market, status=status), Accounting(0.0))
    assert found is not None
    assert (found.equal, found.expected_held) == (pytest.approx(0.1), None)
