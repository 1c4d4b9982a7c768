"""A policy as ONNX: onnxruntime gives its own weights from unscaled inputs; what cannot be exported is refused."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import finflow
from finflow.artifacts import onnx_policy
from finflow.data.market import ABSENT
from finflow.errors import AuditError, ConfigError
from finflow.io.weights import load_weights, save_weights
from finflow.schema import Config
from finflow.stages import export as stage
from finflow.stages.loaded_run import load_trained
from finflow.stages.results import ExportResult
from tests.docs.pages import ROOT, blocks

from .conftest import TINY

DAYS, KAPPA = 1400, 0.4
MISSING = [name for name in onnx_policy.LIBRARIES if find_spec(name) is None]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} missing: pip install -c constraints.txt -e '.[export]'"
)


def settings(run: Path, out: Path) -> Config:
    return finflow.load("export", [f"run='{run}'", f"out='{out}'", f"output_root='{run.parent}'"])


def trained(place: Path, kind: str) -> Path:
    """A run on four names, the last listed within the validation window; deployed at `KAPPA`, its weights far off."""
    steps = np.random.default_rng(3).normal(0.0003, 0.01, (DAYS, 4))
    table = pd.DataFrame(50 * np.exp(np.cumsum(steps, axis=0)), columns=["A", "B", "C", "LATE"]).round(4)
    table.index = pd.Index(pd.bdate_range("2015-01-05", periods=DAYS).strftime("%Y-%m-%d"), name="date")
    table.iloc[: DAYS - 180, 3] = np.nan
    table.to_csv(place / "prices.csv")
    own = [f"algo.network.kind={kind}", "env=csv", f"env.path='{place}/prices.csv'", f"output_root='{place}'"]
    rules = ["env.rebalance=weekly", "env.limits.max_weight=0.5", "tracking=none"]
    run = finflow.pretrain(finflow.load("pretrain", [*TINY, *own, *rules]), place / "run").run_dir
    tensors, metadata = load_weights(run / "weights.safetensors")
    noise = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if name.startswith("networks.actor"):
            tensor += 0.3 * torch.randn(tensor.shape, generator=noise)
    evidence = {"mode": "validation", "kappa": KAPPA, "t": 1.3, "active_return": 0.01, "years": 1.0, "parts": {}}
    sha256 = save_weights(run / "weights.safetensors", tensors, metadata | {"confidence": evidence})
    summary = json.loads((run / "summary.json").read_text()) | {"weights_sha256": sha256}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.fixture(scope="module", params=["portfolio", "mlp"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    place = tmp_path_factory.mktemp("export")
    return finflow.export(settings(trained(place, request.param), place / "served" / "policy.onnx"))


def session_of(exported: ExportResult) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])


@needs_onnx
def test_onnxruntime_gives_the_weights_that_the_policy_gives(exported: ExportResult) -> None:
    """On every validation day, from portfolios that no path leads to, all at once and one alone."""
    loaded = load_trained(settings(exported.run, exported.file), str(exported.run))
    market, policy = loaded.prepared.market, loaded.policy
    rows, rng = np.asarray(loaded.prepared.fold.validation.decisions), np.random.default_rng(0)
    held, drawdown = rng.dirichlet(np.ones(market.n), len(rows)), rng.uniform(0, 0.4, len(rows))
    absent = market.status[rows] == ABSENT
    assert absent.any()
    assert not absent.all(0).any()
    assert not market.decision[rows].all()
    assert policy.actor.actors > 1
    wanted, whole = (each.decide(rows, held, drawdown) for each in (policy, policy.at_whole_tilt()))
    assert float((wanted.mean - whole.mean).abs().max()) > 1e-3, "the confidence matters here"
    session = session_of(exported)
    inputs = onnx_policy.inputs_of(market, loaded.prepared.priors, rows, held, drawdown)
    assert [one.name for one in session.get_inputs()] == list(inputs)
    target, aim = session.run(["target", "aim"], inputs)
    np.testing.assert_allclose(target, wanted.mean.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(aim, wanted.aim.numpy(), rtol=0, atol=1e-5)
    for place in (0, len(rows) - 1):
        (alone,) = session.run(["target"], {name: array[[place]] for name, array in inputs.items()})
        np.testing.assert_allclose(alone[0], target[place], rtol=0, atol=1e-6)


@needs_onnx
def test_the_inputs_are_unscaled(exported: ExportResult) -> None:
    """They are the market's own numbers, and the window's answers are the targets that a backtest trades."""
    loaded = load_trained(settings(exported.run, exported.file), str(exported.run))
    market, window = loaded.prepared.market, loaded.prepared.fold.validation
    known, rows = np.load(exported.answers), np.asarray(window.decisions)
    present = market.status[rows][:, :-1] != ABSENT
    np.testing.assert_array_equal(known["features"][present], market.features[rows][present])
    assert np.isnan(known["features"][~present]).all()
    np.testing.assert_array_equal(known["market_features"], market.market_features[rows])
    np.testing.assert_array_equal(known["dates"], market.dates[rows])
    asked: list[Any] = []

    def noting(*state: Any) -> Any:
        asked.append(loaded.policy.act(*state)[0])
        return asked[-1][None]

    loaded.prepared.track(window, noting)
    decided = known["decision_day"].copy()
    decided[0] = True
    answered = np.where(np.arange(len(rows))[:, None] == 0, known["aim"], known["target"])[decided]
    np.testing.assert_allclose(answered, np.array(asked), rtol=0, atol=1e-6)


@needs_onnx
def test_the_file_says_what_it_holds_and_what_it_leaves_out(exported: ExportResult) -> None:
    facts = session_of(exported).get_modelmeta().custom_metadata_map
    loaded = load_trained(settings(exported.run, exported.file), str(exported.run))
    market = loaded.prepared.market
    assert json.loads(facts["assets"]) == ["A", "B", "C", "LATE", "CASH"]
    assert json.loads(facts["features"]) == list(market.feature_names)
    assert json.loads(facts["market_features"]) == list(market.market_feature_names)
    assert json.loads(facts["priors"])[-1] == "benchmark"
    assert (facts["calendar"], facts["rebalance"]) == ("business days, 252 days a year", "weekly")
    assert facts["weights_sha256"] == loaded.summary["weights_sha256"]
    assert facts["finflow_version"] == finflow.__version__
    assert float(facts["kappa"]) == KAPPA
    limits = json.loads(facts["limits_applied_afterwards"])
    assert limits == {"max_weight": 0.5, "min_cash": 0.0, "no_trade_band": 0.0, "max_turnover": None}
    assert all(name in facts["applied_afterwards"] for name in limits)
    assert str(ROOT).encode() not in exported.file.read_bytes()


@needs_onnx
def test_the_program_of_the_page_serves_it(exported: ExportResult) -> None:
    (block,) = [block for block in blocks(ROOT / "docs/export.md") if block.title == "serve.py"]
    assert len(block.text.splitlines()) <= 30
    assert "import finflow" not in block.text
    (exported.file.parent / "serve.py").write_text(block.text)
    done = subprocess.run(
        [sys.executable, "serve.py"], cwd=exported.file.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *weights, limits = done.stdout.splitlines()
    named = {line.split()[0]: float(line.split()[1]) for line in weights}
    assert list(named) == ["A", "B", "C", "LATE", "CASH"]
    assert sum(named.values()) == pytest.approx(1, abs=1e-3)
    assert '"max_weight": 0.5' in limits


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", r"out=.*: a folder; name a file in it"),
        ("policy.pt", r"out=.*policy\.pt: no \.onnx file; name one that ends in \.onnx"),
        ("file/policy.onnx", r"out=.*: .*file is a file; name another folder"),
        ("taken.onnx", r"out=.*taken\.npz: a folder; name a file in it"),
    ],
)
def test_what_can_be_no_file_is_refused(out: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.npz").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        finflow.export(settings(tmp_path / "run", tmp_path / out))
    assert sorted(tmp_path.rglob("*")) == before


def test_no_such_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "require_libraries", lambda: None)
    with pytest.raises(ConfigError, match=r"run=.*: no such folder; name a run folder"):
        finflow.export(settings(tmp_path / "none", tmp_path / "policy.onnx"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", onnx_policy.LIBRARIES)
def test_without_the_extra_it_says_how_to_get_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in onnx_policy.LIBRARIES:
        monkeypatch.setitem(sys.modules, each, None if each == name else sys)
    with pytest.raises(ConfigError, match=rf"export needs {name} .*pip install -c constraints.txt -e '\.\[export\]'"):
        finflow.export(settings(tmp_path / "none", tmp_path / "policy.onnx"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_gives_other_weights_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(_file: bytes, inputs: onnx_policy.Arrays) -> dict[str, Any]:
        return {name: np.full_like(inputs["held"], np.nan) for name in onnx_policy.OUTPUTS}

    run = trained(tmp_path, "portfolio")
    monkeypatch.setattr(stage, "require_libraries", lambda: None)
    monkeypatch.setattr(stage, "onnx_bytes", lambda *_: b"")
    monkeypatch.setattr(stage, "answers", off)
    with pytest.raises(AuditError, match=r"onnxruntime's weights are nan off the policy's; take the versions"):
        finflow.export(settings(run, tmp_path / "policy.onnx"))
    assert not list(tmp_path.glob("policy.*"))
    assert not (tmp_path / "export").exists()
