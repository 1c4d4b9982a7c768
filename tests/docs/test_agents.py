"""The model of another library on docs/judge.md is trained and judged as it stands there."""

from pathlib import Path
from typing import Any

import pytest

import finflow
from finflow.config.compose import load
from finflow.schema import Config

from .pages import all_blocks
from .test_python import AGENT, SMALL


def test_the_model_of_the_page_is_trained_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in all_blocks() if AGENT in block.text]
    assert len([line for line in block.text.splitlines() if line]) < 10

    def small(stage: str, overrides: Any) -> Config:
        return load(stage, [*overrides, *SMALL[stage], "fold=auto"])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finflow, "load", small, raising=False)
    exec(compile(block.text.replace("100_000", "2_048"), block.page, "exec"), {})
    line, report = capsys.readouterr().out.strip().rsplit("\n", 1)[-1].rsplit(" ", 1)
    assert line.startswith("Verdict: ")
    assert "judge / PPO" in (tmp_path / report).read_text()
    assert len((tmp_path / "outputs/test_ledger.jsonl").read_text().splitlines()) == 1
