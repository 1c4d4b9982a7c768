"""Cards of a finished run: which days may be asked for, the shut test window, the same bytes, and damaged files."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import finflow
from finflow.errors import ConfigError, DataError, StorageError
from finflow.stages.explain import chosen_places, explain
from finflow.stages.explaining import explainer_of, gauges_of, provenance_of, window_track
from finflow.stages.loaded_run import load_trained
from finflow.stages.results import EvaluateResult, ExplainResult
from finflow.stages.run_groups import Group

from .conftest import TINY, TUNE, count_reads

MARKET = ["env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=4", *TINY]
TRAIN_DAY = "2003-06-16"
FEW = "evaluation.bootstrap_samples=100"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explained")


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    line = [*MARKET, f"output_root={root}", "init.weights=null", *TUNE]
    return finflow.finetune(finflow.load("finetune", line)).run_dir


@pytest.fixture(scope="module")
def shut(root: Path, run: Path) -> str:
    """What explain says of the test window before anyone has opened it."""
    with pytest.raises(ConfigError) as refused:
        cards(root, run, "top=1")
    assert not (root / "explain").exists()
    return str(refused.value)


@pytest.fixture(scope="module")
def closed(root: Path, run: Path, shut: str) -> ExplainResult:
    """A card of a train day, made before anyone has opened the test window."""
    return cards(root, run, f"date={TRAIN_DAY}")


@pytest.fixture(scope="module")
def judged(root: Path, run: Path, closed: ExplainResult) -> EvaluateResult:
    sectors = root / "sectors.csv"
    line = [f"output_root={root}", f"run={run}", FEW, f"sectors={sectors}"]
    sectors.write_text("ticker,sector\nSYN01,old\nSYN02,old\nSYN03,new\n")
    with pytest.raises(DataError, match=r"sectors=.*: no sector for SYN04; add a row for each"):
        finflow.evaluate(finflow.load("evaluate", line))
    assert not (root / "test_ledger.jsonl").exists()  # the window stays shut
    sectors.write_text("ticker,sector\nSYN01,old\nSYN02,old\nSYN03,new\nSYN04,new\n")
    return finflow.evaluate(finflow.load("evaluate", line))


def cards(root: Path, run: Path, *asked: str) -> ExplainResult:
    return explain(finflow.load("explain", [f"output_root={root}", f"run={run}", *asked]))


def test_a_window_that_nobody_opened_stays_shut(run: Path, shut: str) -> None:
    assert "has not been opened for this run; run: python experiments/evaluate.py" in shut
    assert str(run) in shut


def test_cards_are_not_an_opening(
    root: Path, run: Path, judged: EvaluateResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reads = (root / "test_ledger.jsonl").read_bytes(), count_reads(monkeypatch)
    result = cards(root, run, "top=2")
    assert len(reads) == 1  # of the prices
    assert (root / "test_ledger.jsonl").read_bytes() == log
    turnover = judged.evaluation.policy.turnover.copy()
    turnover[0] = 0.0
    order = np.argsort(-turnover, kind="stable")[:2]
    market_days = [str(judged.evaluation.policy.dates[place - 1]) for place in order]
    assert [card.date for card in result.cards] == market_days  # decided at the close before the return
    assert [card.turnover for card in result.cards] == turnover[order].tolist()
    assert result.index is not None
    assert all(page.name in result.index.read_text() for page in result.pages)
    summary = json.loads((result.run_dir / "summary.json").read_text())
    assert [one["date"] for one in summary["cards"]] == market_days
    assert result.run_dir.parent.parent == root / "explain"
    of_one = cards(root, run, "top=2", "ticker=SYN02").cards
    assert [(card.date, card.focus) for card in of_one] == [(day, "SYN02") for day in market_days]


def test_a_card_recomputed_has_the_same_bytes(root: Path, run: Path, judged: EvaluateResult) -> None:
    first = cards(root, run, "top=1")
    newest = max((root / "evaluate").glob("*/*"))
    shutil.copytree(newest, newest.with_name(f"{newest.name}-again"))
    second = cards(root, run, f"date={first.cards[0].date}")
    assert first.run_dir != second.run_dir
    for page in (first.pages[0], first.pages[0].with_suffix(".json")):
        assert (second.run_dir / page.name).read_bytes() == page.read_bytes()
    data = json.loads(first.pages[0].with_suffix(".json").read_text())
    assert data["provenance"]["weights_sha256"] == json.loads((run / "summary.json").read_text())["weights_sha256"]
    assert data["window"] == "test"
    assert first.index is None


def test_a_card_names_what_it_was_made_of(root: Path, run: Path, judged: EvaluateResult) -> None:
    """Hashes of data and weights as the run's own files hold them; that of the settings follows them alone."""
    told = cards(root, run, f"date={TRAIN_DAY}").cards[0].provenance
    record = json.loads((run / "run.json").read_text())
    assert told["data_fingerprint"] == record["data_fingerprint"]
    assert (told["run"], told["fold"], told["seed"]) == (f"finetune/{run.parent.name}/{run.name}", "auto", 0)
    trained = load_trained(finflow.load("explain", [f"output_root={root}"]), str(run))

    def settings(**changes: object) -> str:
        changed = replace(trained, config=trained.config.model_copy(update=changes))
        return str(provenance_of(Group((changed,)))["config_hash"])

    assert settings() == settings(output_root="elsewhere") == told["config_hash"]
    assert settings(seed=1) != told["config_hash"]


def test_the_report_explains_the_window(judged: EvaluateResult) -> None:
    found = json.loads((judged.run_dir / "explanations.json").read_text())
    policy = judged.evaluation.metrics["policy"]
    for parts in (found["contributions"], found["names"]):
        assert sum(
            one.get("earned", 0) + one.get("drift", 0) + one.get("trading", 0) - one["cost"] for one in parts
        ) == (pytest.approx(policy.final_nav - 1, abs=1e-9))
        assert sum(one["risk"] for one in parts) == pytest.approx(policy.volatility, abs=1e-9)
    assert sum(row["days"] for row in found["gate"]) == len(judged.evaluation.policy.dates)
    assert sum(found["importance"]["share"]) == pytest.approx(1.0)
    assert found["importance"]["low"] is None  # one run: nothing is known of its spread
    sectors = {one["sector"]: one["allocation"] + one["selection"] for one in found["sectors"]["sectors"]}
    assert list(sectors) == ["old", "new", "CASH"]
    assert sum(sectors.values()) - found["sectors"]["cost"] == pytest.approx(found["sectors"]["active"], abs=1e-10)
    page = judged.report.read_text()
    assert "Active return by sector" in page
    assert page.count('<details class="decision">') == len(found["cards"]) >= 3
    assert "how far this depends on the seed is not known" in page


def test_a_critic_is_judged_by_days_it_was_not_fitted_on(
    root: Path, run: Path, closed: ExplainResult, judged: EvaluateResult
) -> None:
    """By validation as long as the test window is shut, by the test window from then on; a train day says so."""
    (before,), (after,) = closed.cards, cards(root, run, f"date={TRAIN_DAY}").cards
    assert (before.window, before.calibration_window) == ("train", "validation")
    assert (after.window, after.calibration_window) == ("train", "test")
    of_test = cards(root, run, "top=1").cards[0]
    assert of_test.calibration_window == "test"
    assert after.calibration == of_test.calibration != before.calibration
    assert replace(after, calibration=None, calibration_window="") == replace(
        before, calibration=None, calibration_window=""
    )
    page = closed.pages[0].read_text()
    assert "the policy was fitted on it" in page
    assert "Over the whole validation window its 5 to 95 % band held" in page


CHROMIUM = Path("/usr/bin/chromium")
PAPER = 695
"""Width of an A4 page without margins, CSS pixels."""


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed: the pages cannot be looked at")
def test_pages_are_drawn_whole(root: Path, run: Path, judged: EvaluateResult) -> None:
    """Nothing complains, nothing is fetched, every chart is there, and no page is wider than its window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    result = cards(root, run, "top=2")
    assert result.index is not None
    pages = [(judged.report, 1280), (result.pages[0], 1280), (result.pages[0], 390), (result.index, 390)]
    said: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        for path, width in pages:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(120_000)  # of a machine that does much else
            page.on("console", lambda message: said.append(message.text))
            page.on("request", lambda request: said.append(request.url))
            page.goto(path.as_uri())
            assert said.pop(0) == path.as_uri()
            if path == judged.report:
                page.wait_for_selector("html[data-drawn]", state="attached")
                for key in ("importance", "gate-regimes", "calibration"):
                    assert page.locator(f"#{key} .plot-container path[d]").count() > 3
                page.locator("details.decision summary").first.click()
                assert page.locator("details.decision .bars").first.is_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if width == 1280:  # on paper: A4 without its margins
                page.emulate_media(media="print")
                page.set_viewport_size({"width": PAPER, "height": 900})
                page.evaluate("dispatchEvent(new Event('beforeprint'))")
                page.wait_for_function(f"document.documentElement.scrollWidth <= {PAPER}")
                drawn = "i => getComputedStyle(i).printColorAdjust"
                assert page.locator(".bars .track i").first.evaluate(drawn) == "exact"  # else bars are left out
        browser.close()
    assert said == []


def test_days_of_other_windows_need_no_evaluation(root: Path, run: Path, judged: EvaluateResult) -> None:
    dates = json.loads((run / "run.json").read_text())["fold"]
    day = dates["validation"][0]
    result = cards(root, run, f"date={day}")
    assert (result.cards[0].date, result.cards[0].window) == (day, "validation")
    first, last = str(np.datetime64(day) + 0), str(np.datetime64(day) + 6)
    several = cards(root, run, f"date=[{first},{last}]")
    assert len(several.cards) >= 4
    assert [card.date for card in several.cards] == sorted(card.date for card in several.cards)
    best = cards(root, run, f"date=[{first},{last}]", "top=1")
    assert best.cards[0].turnover == max(card.turnover for card in several.cards)


@pytest.mark.parametrize(
    ("asked", "fragment"),
    [
        ("date=2006-01-07", "date=2006-01-07: no trading day of the prices; name another, or [first,last]"),
        ("date=1990-01-01", "date=1990-01-01: no trading day of the prices"),
        ("date=2000-02-01", "not inside one window's decisions; those of this run are train"),
        ("date=[2004-06-01,2007-01-01]", "not inside one window's decisions"),
        ("date=[2006-01-07,2006-01-08]", "date=[2006-01-07,2006-01-08]: no trading day of the prices"),
        ("date=[2006-02-01,2006-01-01]", "date=[2006-02-01,2006-01-01]: no trading day of the prices"),
    ],
)
def test_days_that_cannot_be_explained(
    root: Path, run: Path, judged: EvaluateResult, asked: str, fragment: str
) -> None:
    before = sorted((root / "explain").glob("*/*")) if (root / "explain").exists() else []
    with pytest.raises(ConfigError, match=re.escape(fragment)):
        cards(root, run, asked)
    assert sorted((root / "explain").glob("*/*")) == before


def test_an_evaluation_that_was_edited_is_refused(root: Path, run: Path, judged: EvaluateResult) -> None:
    folder = max((root / "evaluate").glob("*/*"))  # the newest, which explain reads
    kept = {name: (folder / name).read_text() for name in ("weights.csv", "returns.csv")}
    lines = kept["weights.csv"].splitlines()
    date, first, second, *rest = lines[5].split(",")
    swapped = [*lines[:5], ",".join([date, second, first, *rest]), *lines[6:]]
    for name, text in (
        ("weights.csv", "\n".join(swapped)),
        ("weights.csv", "\n".join(lines[:-1])),
        ("weights.csv", "not a table"),
        ("returns.csv", kept["returns.csv"].replace("policy", "someone")),
    ):
        (folder / name).write_text(text)
        with pytest.raises(StorageError, match="evaluate again"):
            cards(root, run, "top=1")
        (folder / name).write_text(kept[name])
    cards(root, run, "top=1")


def test_days_without_a_decision(root: Path, run: Path, judged: EvaluateResult) -> None:
    """With rarer decisions only theirs have cards."""
    config = finflow.load("explain", [f"output_root={root}", f"run={run}"])
    trained = load_trained(config, str(run))
    track = window_track(Group((trained,)), "test")
    assert track is not None
    explainer = explainer_of(Group((trained,)), "test", track, gauges_of(trained))
    rare = np.zeros(len(track.dates), dtype=bool)
    rare[[0, 20, 40]] = True
    explainer.scene = replace(explainer.scene, decided=rare)
    first = int(explainer.scene.rows[0])
    assert sorted(chosen_places(config.model_copy(update={"top": 5}), explainer, first, first + 60)) == [20, 40]
    asked = config.model_copy(update={"date": str(track.dates[24])})
    with pytest.raises(ConfigError, match=f"date={track.dates[24]}: no decision is taken there; name another day"):
        chosen_places(asked, explainer, first + 25, first + 25)
