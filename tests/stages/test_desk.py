"""From one close to the next: a decision's card and log, what became of it, and the explanation of what was decided."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.errors import AuditError, ConfigError
from finflow.stages.results import DecideResult, ExplainResult

from .conftest import TINY, TUNE

GROWN = 25


def write(path: Path, days: int) -> None:
    rng = np.random.default_rng(4)
    moves = rng.normal(4e-4, 0.01, (1225, 5))
    index = pd.Index(pd.bdate_range("2015-01-05", periods=1225).strftime("%Y-%m-%d"), name="date")
    prices = pd.DataFrame(50 * np.exp(moves.cumsum(0)), index=index, columns=[f"T{i}" for i in range(5)])
    prices.iloc[:days].to_csv(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("desk")
    write(place / "prices.csv", 1225 - GROWN)
    (place / "held.csv").write_text("ticker,weight\nT0,0.6\nCASH,0.4\n")
    data = ["env=csv", f"env.path='{place}/prices.csv'", *TINY, *TUNE, "init.weights=null", f"output_root={place}"]
    finflow.finetune(finflow.load("finetune", data))
    return place


def decide(root: Path, *typed: str) -> DecideResult:
    return finflow.decide(finflow.load("decide", [f"output_root={root}", *typed]))


def cards(root: Path, *typed: str) -> ExplainResult:
    return finflow.explain(finflow.load("explain", [f"output_root={root}", *typed]))


def test_a_day_at_the_desk(root: Path) -> None:
    first, owned = decide(root), decide(root, f"holdings='{root}/held.csv'")
    assert first.became == owned.became == ()
    assert (first.owned, owned.owned) == (False, True)
    page = first.card.read_text()
    assert "this is the newest close of the data" in page
    assert first.portfolio.startswith("a model portfolio, bought at the close of ")
    entries = [json.loads(line) for line in owned.log.read_text().splitlines()]
    assert owned.log.parent == root / "decisions"
    assert [entry["owned"] for entry in entries] == [False, True]
    assert entries[1]["held"]["T0"] == pytest.approx(0.6)
    record = json.loads((owned.run_dir / "run.json").read_text())
    assert record[f"decisions/{owned.log.name}"] == entries[1]["hash"]
    assert entries[1]["fingerprint"] == record["data_fingerprint"]
    # What decide printed is what explain explains: for the holdings that were given last.
    (card,) = cards(root, "ticker=T0").cards
    assert (card.date, card.window, card.focus) == (owned.date, "live", "T0")
    assert {line.asset: line.after for line in card.lines} == {trade.asset: trade.target for trade in owned.trades}
    assert card.holding is not None
    assert card.holding.start == pytest.approx(0.6)
    own = json.loads(owned.card.with_suffix(".json").read_text())
    assert own["lines"] == json.loads(json.dumps(card.to_dict()["lines"]))

    write(root / "prices.csv", 1225)
    later = decide(root)
    assert later.new_days == GROWN
    (became,) = later.became  # one close was decided, the last time for those holdings
    closes = pd.read_csv(root / "prices.csv", index_col=0).iloc[-1 - GROWN :]
    grown = closes.iloc[-1] / closes.iloc[0]
    targets = {trade.asset: trade.target for trade in owned.trades}
    cost = 0.0015 * sum(abs(trade.trade) for trade in owned.trades if trade.asset != "CASH")
    wealth = sum(weight * grown.get(name, 1.0) for name, weight in targets.items())
    assert became.closes == GROWN
    assert became.decided == pytest.approx((1 - cost) * wealth - 1, abs=1e-4)  # cash has a yield
    assert became.held == pytest.approx(0.4 + 0.6 * grown["T0"] - 1, abs=1e-4)
    assert became.expected_held is not None
    assert (later.run_dir / "realised.csv").read_text().count("\n") == 2
    # A day that was added since has a card with an outcome; the logged one is explained as it was decided.
    added = cards(root, f"date={closes.index[3]}").cards[0]
    assert (added.window, added.outcome is not None) == ("live", True)
    again = cards(root, f"date={owned.date}").cards[0]
    assert [line.after for line in again.lines] == [line.after for line in card.lines]
    assert again.outcome is not None


def test_a_name_that_is_none_is_refused_and_nothing_is_written(root: Path) -> None:
    before = sorted(root.glob("explain/*/*"))
    with pytest.raises(ConfigError, match=r"ticker=ZZ: no name of the run; known here: T0, T1, T2, T3, T4"):
        cards(root, "ticker=ZZ")
    assert sorted(root.glob("explain/*/*")) == before


def test_a_log_that_was_touched_is_refused_and_nothing_is_decided(root: Path) -> None:
    log = decide(root).log
    text, before = log.read_text(), sorted(root.glob("decide/*/*"))
    for changed in (text.replace("true", "false", 1).replace('"owned": false', '"owned": true', 1), ""):
        log.write_text(changed)
        with pytest.raises(AuditError, match=r"jsonl:1: the log of decisions was changed|the decision .* is gone"):
            decide(root)
        assert sorted(root.glob("decide/*/*")) == before
    log.write_text(text)
    decide(root)
