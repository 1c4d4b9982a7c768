"""What evaluate and decide say of the run that they judge, of its data, and of the window's earlier openings."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.config.compose import from_yaml
from finflow.data.build import build_market
from finflow.errors import AuditError, ConfigError, DataError, ParentError
from finflow.report.page import RunFacts
from finflow.schema.sections import Env
from finflow.stages import evaluate as stage
from finflow.stages.prepare import PAST, compare_past, past_facts
from finflow.stages.results import EvaluateResult
from finflow.tracking import sink

from .conftest import TINY, TUNE

DAYS = 1400


def write(path: Path, days: int, change: float = 1.0) -> None:
    rng = np.random.default_rng(3)
    steps = rng.normal(0.0003, 0.01, (DAYS + 50, 4))
    prices = pd.DataFrame(50 * np.exp(np.cumsum(steps, axis=0)), columns=["A", "B", "C", "D"]).iloc[:days]
    prices.index = pd.Index(pd.bdate_range("2015-01-05", periods=days).strftime("%Y-%m-%d"), name="Date")
    prices.iloc[700, 2] *= change
    prices.round(4).to_csv(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output root with two seeds of both phases, the last of them fine-tuned last."""
    place = tmp_path_factory.mktemp("judging (1)")
    write(place / "my prices.csv", DAYS)
    for seed in (0, 1):
        finflow.pretrain(finflow.load("pretrain", line(place, f"seed={seed}")))
    for seed in (0, 1):
        finflow.finetune(finflow.load("finetune", line(place, f"seed={seed}", "name=mine", *TUNE)))
    return place


@pytest.fixture(autouse=True)
def prices(root: Path) -> Path:
    write(root / "my prices.csv", DAYS)
    sink._said.clear()
    return root / "my prices.csv"


def line(place: Path, *more: str) -> list[str]:
    return [f"output_root='{place}/out'", "env=csv", f"env.path='{place}/my prices.csv'", *TINY, *more]


def runs(root: Path, stage: str) -> list[Path]:
    return sorted((path.parent for path in (root / "out" / stage).glob("*/*/summary.json")), key=lambda p: p.name)


def evaluate(root: Path, run: str = "latest", samples: int = 200) -> EvaluateResult:
    few = f"evaluation.bootstrap_samples={samples}"
    return finflow.evaluate(finflow.load("evaluate", [f"output_root='{root}/out'", f"run='{run}'", few]))


def record(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run.json").read_text())


def test_each_seed_of_a_sweep_starts_from_its_own_parent(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [json.loads((run / "summary.json").read_text())["weights_sha256"] for run in runs(root, "pretrain")]
    taken = [json.loads((run / "summary.json").read_text())["parent_sha256"] for run in runs(root, "finetune")]
    assert made == taken
    assert made[0] != made[1]
    capsys.readouterr()
    other = finflow.finetune(finflow.load("finetune", line(root, "seed=7", *TUNE)))
    told = [text for text in capsys.readouterr().err.splitlines() if "seed" in text]
    assert len(told) == 1
    assert "seed=7" in told[0]
    assert "seed=1" in told[0]
    shutil.rmtree(other.run_dir)


def test_a_rule_that_changed_since_pretraining_is_named(root: Path) -> None:
    with pytest.raises(ParentError, match=r"env.rebalance='monthly' \(newest has 'daily'\)") as refused:
        finflow.finetune(finflow.load("finetune", line(root, "env.rebalance=monthly", *TUNE)))
    assert "data_fingerprint" not in str(refused.value)
    words = shlex.split(str(refused.value).split("; run: python ")[1])
    again = finflow.load("pretrain", words[1:])
    assert again.env == finflow.load("pretrain", line(root, "env.rebalance=monthly")).env
    assert again.output_root == f"{root}/out"


def test_an_evaluation_says_what_it_is_and_what_it_judged(root: Path) -> None:
    result, judged = evaluate(root), runs(root, "finetune")[-1]
    assert result.runs == (judged,)
    assert result.run_dir.parent == root / "out" / "evaluate" / "mine"
    assert result.run_dir.name.endswith("-s1")
    kept = record(result.run_dir)
    assert (kept["stage"], kept["name"], kept["seed"]) == ("evaluate", "mine", 1)
    assert kept["run"] == [str(judged)]
    assert kept["settings"] == {
        "run": "latest",
        "sectors": None,
        "baselines": [],
        "bootstrap_samples": 200,
        "block_days": 21,
    }
    own = from_yaml(result.run_dir / "config.yaml")
    assert (own.stage, own.evaluation.bootstrap_samples) == ("evaluate", 200)
    decided = finflow.decide(finflow.load("decide", shlex.split(result.next_command)[2:]))
    assert decided.runs == (judged,)
    assert decided.run_dir.parent == root / "out" / "decide" / "mine"
    assert record(decided.run_dir)["stage"] == "decide"


def test_latest_says_so_when_it_took_a_pretraining_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "my prices.csv", DAYS)
    run = finflow.pretrain(finflow.load("pretrain", line(tmp_path))).run_dir
    capsys.readouterr()
    assert evaluate(tmp_path, str(run)).runs == (run,)
    assert "pretraining run" not in capsys.readouterr().err
    assert evaluate(tmp_path).runs == (run,)
    assert f"run=latest: the newest finished run is a pretraining run, {run}" in capsys.readouterr().err


def test_grown_prices_with_the_same_past_are_judged_as_before(
    root: Path, prices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluate(root)
    write(prices, DAYS + 20)
    after = evaluate(root)
    assert after.new_days == 20
    assert before.new_days == 0
    np.testing.assert_array_equal(after.evaluation.policy.net, before.evaluation.policy.net)
    np.testing.assert_array_equal(after.evaluation.policy.dates, before.evaluation.policy.dates)
    assert after.evaluation.window_opened == before.evaluation.window_opened + 1
    capsys.readouterr()
    decided = finflow.decide(finflow.load("decide", [f"output_root='{root}/out'"]))
    assert decided.new_days == 20
    assert decided.date == str(pd.bdate_range("2015-01-05", periods=DAYS + 20)[-1].date())
    assert "changed" not in capsys.readouterr().err


def test_a_rewritten_past_is_refused_by_evaluate_and_told_by_decide(
    root: Path, prices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(pd.bdate_range("2015-01-05", periods=DAYS)[-1].date())
    for days in (DAYS, DAYS + 20):
        write(prices, days, change=1.001)
        with pytest.raises(DataError, match=f"prices from 2015-01-05 to {last} changed"):
            evaluate(root)
        sink._said.clear()
        decided = finflow.decide(finflow.load("decide", [f"output_root='{root}/out'"]))
        assert f"prices from 2015-01-05 to {last} changed" in capsys.readouterr().err
        assert decided.new_days == 0


def test_decide_orders_from_what_is_held(root: Path, prices: Path) -> None:
    """From shares: weights by the newest closes, the policy's own target of them, and orders that the cash pays for."""
    line = [f"output_root='{root}/out'"]
    model = finflow.decide(finflow.load("decide", line))
    assert not model.owned
    assert model.ticket.capital is None
    bought = finflow.decide(finflow.load("decide", [*line, "capital=50000"]))
    assert bought.ticket.capital == 50_000
    (cash,) = [trade.target for trade in bought.trades if trade.asset == "CASH"]
    assert cash < 0.2
    assert bought.ticket.turnover == pytest.approx(1 - cash, abs=0.01), "the whole aim is bought, as a backtest does"
    close = pd.read_csv(prices, index_col=0).iloc[-1]
    held = root / "held.csv"
    held.write_text("ticker,shares\nA,100\nCASH,3000\n")
    decided = finflow.decide(finflow.load("decide", [*line, f"holdings='{held}'"]))
    assert decided.owned
    worth = 100 * close["A"] + 3000
    assert decided.ticket.capital == pytest.approx(worth)
    now = {trade.asset: trade.held for trade in decided.trades}
    assert now == pytest.approx({"A": 100 * close["A"] / worth, "B": 0, "C": 0, "D": 0, "CASH": 3000 / worth})
    assert {order.asset for order in decided.ticket.orders} == {"A", "B", "C", "D"}
    table = pd.read_csv(decided.orders)
    np.testing.assert_allclose(table["notional"], table["shares"] * table["asset"].map(close))
    assert decided.ticket.cash == pytest.approx(3000 - table["notional"].sum() - table["cost"].sum())
    kept = json.loads((decided.run_dir / "summary.json").read_text())
    assert kept["ticket"]["capital"] == pytest.approx(worth)
    with pytest.raises(ConfigError, match="capital=5: the shares of holdings are worth"):
        finflow.decide(finflow.load("decide", [*line, f"holdings='{held}'", "capital=5"]))


def test_the_verdict_stands_on_the_ticket(root: Path) -> None:
    result = evaluate(root)
    decided = finflow.decide(finflow.load("decide", [f"output_root='{root}/out'"]))
    assert decided.verdict == result.evaluation.verdict.line()


@pytest.mark.parametrize("decimals", [2, 4])
@pytest.mark.parametrize("factor", [0.9934, 0.5])
def test_closes_that_a_dividend_or_split_rescaled_are_the_same_past(
    root: Path, prices: Path, factor: float, decimals: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluate(root)
    table = pd.read_csv(prices, index_col=0)
    table["C"] = (table["C"] * factor).round(decimals)
    table.to_csv(prices)
    sink._said.clear()
    capsys.readouterr()
    after = evaluate(root)
    said = [text for text in capsys.readouterr().err.splitlines() if "re-adjusted" in text]
    assert len(said) == 1
    assert f"(C by {factor}); returns are unchanged" in said[0]
    np.testing.assert_allclose(after.evaluation.policy.net, before.evaluation.policy.net, atol=10.0**-decimals)
    table.iloc[700, 0] *= 1.001
    table.to_csv(prices)
    with pytest.raises(DataError, match=r"prices from 2015-01-05 .* changed"):
        evaluate(root)


def test_other_data_than_prices_are_compared_too(root: Path, small_csv_env: Env) -> None:
    market = build_market(small_csv_env)
    cache = root / "past"
    kept = {"data_fingerprint": "then", PAST: past_facts(market, cache)}
    assert compare_past(kept, market, cache).changed is None
    market.features[100, 0, 0] += 1
    changed = compare_past(kept, market, cache).changed
    assert changed is not None
    assert changed.startswith("volume, signals")
    assert compare_past({"data_fingerprint": "then"}, market, cache).changed is not None
    assert compare_past({"data_fingerprint": market.fingerprint}, market, cache).changed is None


@pytest.fixture
def small_csv_env(root: Path) -> Env:
    return finflow.load("pretrain", line(root)).env


def test_the_parents_curves_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "my prices.csv", DAYS)
    monkeypatch.chdir(tmp_path)
    here = ["output_root=out", *line(tmp_path)[1:]]
    finflow.pretrain(finflow.load("pretrain", here))
    finflow.finetune(finflow.load("finetune", [*here, *TUNE]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    seen: list[RunFacts] = []
    real = stage.write_report
    monkeypatch.setattr(stage, "write_report", lambda *args: (seen.append(args[2]), real(*args)))
    result = evaluate(tmp_path)
    assert seen[0].pretrain
    assert str(tmp_path / "out" / "pretrain") not in result.report.read_text()


def test_a_log_of_openings_that_was_cut_is_noticed(root: Path) -> None:
    result = evaluate(root, samples=150)  # an opening of its own
    log = root / "out" / "test_ledger.jsonl"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(AuditError, match="is gone") as refused:
        evaluate(root)
    assert str(result.run_dir) in str(refused.value)
    assert refused.value.exit_code == 6
    log.write_bytes(whole)
    evaluate(root)
