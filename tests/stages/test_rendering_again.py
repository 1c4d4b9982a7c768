"""Opening a test window and rendering its page are two things: what was judged once is rendered from its file."""

import json
from pathlib import Path

import numpy as np
import pytest

import finflow
from finflow.evaluation.files import STORED, read_stored
from finflow.stages.results import EvaluateResult

from .conftest import TINY

FEW = "evaluation.bootstrap_samples=100"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rendering")
    market = ["env=synthetic", "env.synthetic.days=1500", "env.synthetic.assets=3", "env.cash_yield=0.02"]
    finflow.pretrain(finflow.load("pretrain", [*market, *TINY, f"output_root={place}"]))
    return place


def evaluate(root: Path, *words: str) -> EvaluateResult:
    return finflow.evaluate(finflow.load("evaluate", [f"output_root={root}", FEW, *words]))


def openings(root: Path) -> int:
    return len((root / "test_ledger.jsonl").read_text().splitlines())


def test_a_page_is_made_again_without_an_opening(root: Path) -> None:
    first = evaluate(root)
    assert (first.rendered_from, openings(root)) == (None, 1)
    names = root / "sectors.csv"
    names.write_text("ticker,sector\n" + "".join(f"{name},one\n" for name in first.evaluation.assets[:-1]))
    again = evaluate(root, f"sectors={names}")
    assert (again.rendered_from, openings(root)) == (first.run_dir, 1)
    assert again.evaluation.window_opened == 1
    for table in ("returns.csv", "weights.csv", "ledger.csv", "metrics.json"):
        assert (again.run_dir / table).read_bytes() == (first.run_dir / table).read_bytes()
    assert 'id="sector-parts-table"' in again.report.read_text()
    assert 'id="sector-parts-table"' not in first.report.read_text()
    record = json.loads((again.run_dir / "run.json").read_text())
    assert record["rendered_from"] == str(first.run_dir)
    third = evaluate(root)  # from what was rendered, as well as from what was opened
    assert third.rendered_from == again.run_dir
    assert third.report.read_text().split("s-provenance")[1] != ""
    assert (third.run_dir / "explanations.json").read_bytes() == (first.run_dir / "explanations.json").read_bytes()


def test_other_statistics_open_the_window(root: Path) -> None:
    before = openings(root)
    other = evaluate(root, "evaluation.block_days=10")
    assert (other.rendered_from, openings(root)) == (None, before + 1)
    assert other.evaluation.window_opened == before + 1


def test_other_code_opens_the_window(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, before = "evaluation.block_days=11", openings(root)
    evaluate(root, words)
    monkeypatch.setattr("finflow.stages.evaluated_runs.sources_hash", lambda _: "of another version")
    assert evaluate(root, words).rendered_from is None
    assert openings(root) == before + 2


def test_a_damaged_file_is_no_evaluation(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "evaluation.block_days=12"
    found = evaluate(root, words).run_dir / STORED
    data = bytearray(found.read_bytes())
    data[len(data) // 2] ^= 1
    found.write_bytes(data)
    before = openings(root)
    assert evaluate(root, words).rendered_from is None
    assert openings(root) == before + 1
    assert "the test window is opened anew" in capsys.readouterr().err


def test_the_file_holds_the_evaluation_to_the_bit(root: Path) -> None:
    result = evaluate(root, "evaluation.block_days=14")
    stored, found = read_stored(result.run_dir / STORED).evaluation, result.evaluation
    assert (stored.verdict, stored.scrutiny, stored.metrics, stored.costs, stored.warnings) == (
        found.verdict, found.scrutiny, found.metrics, found.costs, found.warnings,
    )  # fmt: skip
    assert list(stored.baselines) == list(found.baselines)
    for one, two in ((stored.policy, found.policy), *((stored.baselines[k], t) for k, t in found.baselines.items())):
        np.testing.assert_array_equal(one.net, two.net)
        np.testing.assert_array_equal(one.dates, two.dates)
        assert one.dates.dtype == two.dates.dtype
    np.testing.assert_array_equal(stored.policy.weights, found.policy.weights)
    kept = found.verdict.opponent
    np.testing.assert_array_equal(stored.baselines[kept].weights, found.baselines[kept].weights)
    assert stored.baselines["buy and hold"].weights.shape == (len(found.policy.net), 0)
    np.testing.assert_array_equal(stored.cash, found.cash)
