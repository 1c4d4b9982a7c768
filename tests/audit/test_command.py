"""`audit=true` on a user's own CSV: it passes, leaves the test window shut, names a leaking feature and its date."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.cli.errors import exit_code
from finflow.cli.main import launch
from finflow.data import build
from finflow.data.features import MARKET_FEATURES, History
from finflow.data.prices import Prices
from finflow.errors import AuditError, ConfigError
from finflow.evaluation.test_window_log import FILE_NAME
from finflow.schema.sections import Env
from finflow.stages import audit as stage
from finflow.stages.results import AuditResult

from .conftest import NAMES, TINY, PlugIn

ROOT = Path(__file__).resolve().parents[2]
CHECKS = 17  # of env=csv, which has the file itself besides


def tomorrow(history: History) -> np.ndarray:
    """Return from t to t + 1."""
    return np.append(history.simple_return[1:], np.full((1, NAMES), np.nan), axis=0)


def full_sample_score(history: History) -> np.ndarray:
    """Log price less its mean over all days, over its deviation over all days."""
    logs = np.ma.masked_invalid(np.log(history.close))
    return ((logs - logs.mean(axis=0)) / logs.std(axis=0)).filled(np.nan)


@pytest.fixture
def few_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "DATES", 8)
    monkeypatch.setattr(stage, "DEEP_DATES", 3)


def run_on(own_csv: Path, root: Path) -> str:
    config = finflow.load("pretrain", ["env=csv", f"env.path={own_csv}", f"output_root={root}", *TINY])
    return str(finflow.pretrain(config).run_dir)


def audited(root: Path, run: str = "latest") -> AuditResult:
    return stage.audit(finflow.load("evaluate", ["audit=true", f"output_root={root}", f"run={run}"]))


@pytest.fixture(scope="module")
def honest(own_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    run_on(own_csv, root)
    return root


@pytest.mark.usefixtures("few_dates")
def test_an_honest_run_passes_and_the_test_window_stays_shut(honest: Path) -> None:
    result = audited(honest)
    assert result.passed
    result.require()
    assert re.fullmatch(rf"Audit: PASSED \({CHECKS} checks, \d+ comparisons, futures of 8 dates\)", result.line())
    record = json.loads((result.run_dir / "audit.json").read_text())
    assert record["passed"]
    assert len(record["dates"]) == 8
    assert [check["name"] for check in record["checks"]] == [check.name for check in result.checks]
    assert not (honest / FILE_NAME).exists()
    assert not (result.run_dir / "summary.json").exists()
    assert result.next_command.startswith("python experiments/evaluate.py ")


@pytest.mark.usefixtures("few_dates")
def test_the_entry_point_prints_a_row_a_check_and_the_verdict(
    honest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    line = ["audit=true", f"output_root={honest}"]
    assert launch("evaluate", line) == 0
    *lines, verdict, folder, following = capsys.readouterr().out.splitlines()
    assert sum("same" in text for text in lines) == CHECKS
    assert verdict.startswith("Audit: PASSED (")
    assert folder.startswith("Run folder: ")
    assert following.startswith("Next: python experiments/evaluate.py ")


@pytest.mark.usefixtures("few_dates")
def test_a_feature_that_knows_tomorrow_is_named_with_its_date(
    own_csv: Path,
    tmp_path: Path,
    plug_in: PlugIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    with plug_in("tomorrow", tomorrow):
        run_on(own_csv, tmp_path)
        line = ["audit=true", f"output_root={tmp_path}"]
        with pytest.raises(AuditError) as caught:
            launch("evaluate", line)
    assert exit_code(caught.value) == AuditError.exit_code == 6
    printed = capsys.readouterr()
    (record,) = tmp_path.glob("evaluate/*/*/audit.json")
    dates = json.loads(record.read_text())["dates"]
    told = re.search(
        r"error: Audit: FAILED, feature tomorrow on (\S+) changes when prices after (\S+) are", printed.err
    )
    assert told is not None
    assert told[1] == told[2] == dates[0], "it looks one day ahead: the day itself is the first that differs"
    assert "feature tomorrow on" in " ".join(printed.out.split())
    by_name = {c["name"]: {d["subject"] for d in c["differences"]} for c in json.loads(record.read_text())["checks"]}
    assert by_name["features"] == {"feature tomorrow"}, "no other feature is suspected"
    assert by_name["policy's weights"], "and the policy acts on it"
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.usefixtures("few_dates")
def test_a_score_over_the_full_sample_is_named_with_its_first_date(
    own_csv: Path, tmp_path: Path, plug_in: PlugIn
) -> None:
    with plug_in("score", full_sample_score):
        run_on(own_csv, tmp_path)
        result = audited(tmp_path)
    with pytest.raises(AuditError, match="feature score on") as caught:
        result.require()
    first = pd.read_csv(own_csv)["Date"][1]  # the first day has no move yet, so it has no features
    assert f"feature score on {first} changes when prices after" in str(caught.value)
    names = {check.name for check in result.checks if check.differences}
    assert "fitted scaling" in names, "what it does to train rows depends on the test rows"


@pytest.mark.usefixtures("few_dates")
def test_a_market_feature_that_looks_ahead_is_named(
    own_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MARKET_FEATURES, "outlook", lambda history: np.append(history.index[5:], np.zeros(5)))
    run_on(own_csv, tmp_path)
    line = audited(tmp_path).line()
    assert line.startswith("Audit: FAILED, market feature outlook on 20")


@pytest.mark.usefixtures("few_dates")
def test_a_loader_that_back_fills_is_caught_by_rewriting_the_file(
    honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = build.SOURCES["csv"]

    def filled(env: Env, cache_dir: Path | None) -> Prices:
        prices = load(env, cache_dir)
        return replace(prices, close=pd.DataFrame(prices.close).bfill().to_numpy())

    monkeypatch.setitem(build.SOURCES, "csv", filled)
    result = audited(honest)
    found = {check.name: {d.subject for d in check.differences} for check in result.checks}
    assert found["prices file"] == {f"price of T{NAMES - 1}"}
    assert found["prices"] == set(), "from these prices on, nothing shows it: the file has to be asked"


def test_several_runs_are_refused() -> None:
    with pytest.raises(ConfigError, match="audit=true takes one run"):
        stage.audit(finflow.load("evaluate", ["audit=true", "run=[a,b]"]))


@pytest.mark.parametrize("typed", ["sectors=s.csv", "evaluation.bootstrap_samples=200", "evaluation.block_days=5"])
def test_what_no_audit_reads_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(typed)}: not read with audit=true; leave out one of the two$"):
        finflow.load("evaluate", ["audit=true", typed])
    finflow.load("evaluate", ["audit=false", typed])


@pytest.mark.slow
def test_a_process_of_its_own_with_all_dates(own_csv: Path, tmp_path: Path) -> None:
    """As a user plugs a feature in: a file of their own that registers it and starts the entry points."""
    (tmp_path / "plug.py").write_text(
        "import runpy, sys\nimport numpy as np\nfrom finflow.data.features import feature\n"
        "@feature('tomorrow', 'momentum')\ndef tomorrow(history):\n"
        "    return np.append(history.simple_return[1:], np.full((1, history.close.shape[1]), np.nan), axis=0)\n"
        f"sys.path.insert(0, {str(ROOT / 'experiments')!r})\nsys.argv = sys.argv[1:]\n"
        f"runpy.run_path({str(ROOT / 'experiments')!r} + '/' + sys.argv[0], run_name='__main__')\n"
    )

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    training = ["env=csv", f"env.path={own_csv}", *TINY]
    for plugged, code in ((True, 6), (False, 0)):
        place = f"output_root=out{code}"
        prefix = ["plug.py"] if plugged else []
        folder = "" if plugged else f"{ROOT / 'experiments'}/"
        done = run(*prefix, f"{folder}pretrain.py", *training, place)
        assert done.returncode == 0, done.stderr
        done = run(*prefix, f"{folder}evaluate.py", "audit=true", place)
        assert done.returncode == code, done.stderr
        said = done.stderr if plugged else done.stdout
        assert ("FAILED, feature tomorrow on" if plugged else "Audit: PASSED (17 checks") in said


def test_from_python_sectors_are_refused_too() -> None:
    with pytest.raises(ConfigError, match=r"^sectors=s\.csv: not read by an audit; leave it out$"):
        stage.audit(finflow.load("evaluate", ["sectors=s.csv"]))
