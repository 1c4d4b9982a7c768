"""A folder of a user's own with the plugin `whole` and an option for it; nothing stays loaded after a test."""

import shutil
import sys
from pathlib import Path

import pytest

from finflow import plugins

OPTION = """# IQL with a key of its own.
defaults:
  - iql
  - _self_

name: pushed
push: 0.25
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "algo").mkdir(parents=True)
    (folder / "algo/pushed.yaml").write_text(OPTION)
    shutil.copy(Path(__file__).with_name("whole.py"), folder / "whole.py")
    return folder


@pytest.fixture(autouse=True)
def _nothing_stays_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(plugins, "_FOLDERS", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
