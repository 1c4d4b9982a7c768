import json
import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from finflow.artifacts import provenance
from finflow.artifacts.provenance import (
    Stopwatch,
    finish_run,
    git_state,
    run_record,
    write_config,
)
from finflow.config.compose import from_yaml, load
from finflow.data.build import build_market
from finflow.errors import StorageError
from finflow.io.files import atomic_json, read_json

DATES = {"name": "2018", "train": ["1996-01-04", "2014-11-28"], "validation": ["a", "b"], "test": ["c", "d"]}


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    command = ["git", *settings, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_git_commit_and_changes(checkout: Path) -> None:
    assert git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "a").write_text("b")
    state = git_state(checkout)
    assert state is not None
    assert state["dirty"] is True


def test_someone_elses_repository_is_not_ours(checkout: Path) -> None:
    inner = checkout / "site-packages"
    inner.mkdir()
    assert git_state(inner) is None


def test_a_hooks_environment_does_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(checkout / "elsewhere"))
    assert git_state(checkout) is not None


def test_no_git_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path / "none") is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None


def test_run_record_is_plain_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGES", ("finflow", "torch", "no-such-package"))
    watch = Stopwatch()
    for _ in range(2):
        with watch.phase("collect"):
            pass
    parent = {"weights": "w", "sha256": "0"}
    config = load("finetune", ["seed=7", "env=synthetic", "env.synthetic.assets=2", "env.synthetic.days=1300"])
    market = build_market(config.env)
    record = run_record(config, market, DATES, parent, watch, {"window_opened": 2})
    atomic_json(tmp_path / "run.json", record)
    assert json.loads((tmp_path / "run.json").read_text()) == record
    assert record["finished"] is None
    finish_run(tmp_path, config, record, watch, {"sharpe": 0.1})
    assert read_json(tmp_path / "summary.json") == {"stage": "finetune", "sharpe": 0.1}
    back = json.loads((tmp_path / "run.json").read_text())
    assert back == record | {"finished": back["finished"]}
    expected = {"stage": "finetune", "seed": 7, "data_fingerprint": market.fingerprint, "fold": DATES, "parent": parent}
    assert {**back, **expected, "window_opened": 2} == back
    assert back["versions"]["torch"]
    assert back["versions"]["no-such-package"] is None
    assert list(back["seconds"]) == ["collect"]
    assert datetime.fromisoformat(back["started"]) <= datetime.fromisoformat(back["finished"])


def test_stopwatch_adds_up_and_survives_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.5, 10.0, 12.0])
    monkeypatch.setattr(provenance.time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.phase("train"):
        pass
    with pytest.raises(KeyError), watch.phase("train"):
        raise KeyError
    assert watch.seconds == {"train": 3.5}


def test_a_phase_within_another_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 9.0, 20.0, 20.5])
    monkeypatch.setattr(provenance.time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.phase("updates"), pytest.raises(KeyError), watch.phase("validation"):
        raise KeyError
    with watch.phase("updates"):
        pass
    assert watch.rounded() == {"updates": 6.5, "validation": 3.0}


def test_config_is_written_once_and_reads_back(tmp_path: Path) -> None:
    config = load("pretrain", ["seed=3"])
    write_config(tmp_path, config)
    write_config(tmp_path, load("pretrain", ["seed=4"]))
    assert from_yaml(tmp_path / "config.yaml") == config


def test_summary(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_json(tmp_path / "summary.json")
    summary: dict[str, Any] = {"sharpe": 0.1, "sortino": None}
    atomic_json(tmp_path / "summary.json", summary)
    assert read_json(tmp_path / "summary.json") == summary
    with pytest.raises(ValueError):
        atomic_json(tmp_path / "summary.json", {"sharpe": float("nan")})
    assert read_json(tmp_path / "summary.json") == summary
    assert os.listdir(tmp_path) == ["summary.json"]
