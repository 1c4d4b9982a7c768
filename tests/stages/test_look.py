"""A dry look says what a run would see, and leaves nothing behind."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.cli.main import launch
from finflow.data.build import load_prices
from finflow.errors import ConfigError
from finflow.stages.look import LookResult

from .test_calendars import write_market


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_market(tmp_path / "p.csv", "D")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seen(*words: str) -> LookResult:
    return finflow.look(finflow.load("look", [*words]))


def test_names_dates_calendar_and_windows(place: Path) -> None:
    text = "\n".join(seen("env=csv", "env.path=p.csv").lines)
    for part in (
        "Prices: csv, p.csv: a column a ticker",
        "Names: 4, AA, BB, CC, DD",
        "Dates: 2010-01-01 to 2014-02-08, 1,500 rows",
        "Calendar: seven days a week, 365 days a year",
        "Decisions: daily, 1,500 of the rows; the newest is one",
        "Fold auto, train: ",
        " (stays shut)",
    ):
        assert part in text
    assert len(text.splitlines()) <= 12


def test_the_newest_row_and_warnings(place: Path) -> None:
    frame = pd.read_csv("p.csv", index_col=0)
    frame.iloc[700:, 1] /= 2
    frame.iloc[-1, 2] = np.nan
    frame.to_csv("p.csv")
    result = seen("env=csv", "env.path=p.csv", "env.rebalance=weekly")
    assert "the newest is none" in "\n".join(result.lines)  # a Saturday: the week goes on
    said = "\n".join(result.warnings)
    assert "BB: price moves by" in said
    assert "CC: no price on 2014-02-08, the newest row" in said


def test_the_command_prints_it_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(place.rglob("*"))
    assert launch("look", ["env=csv", "env.path=p.csv"]) == 0
    assert "Calendar: seven days a week" in capsys.readouterr().out
    assert sorted(place.rglob("*")) == before
    with pytest.raises(ConfigError, match="-m: look runs once"):
        launch("look", ["-m", "env=csv"])


def test_a_snapshot_is_not_made_and_named_where_it_is_read(place: Path) -> None:
    words = ["env=csv", "env.path=p.csv", "env.snapshot=s.snapshot"]
    assert seen(*words).lines[0].startswith("Prices: csv, p.csv")
    assert not (place / "s.snapshot").exists()
    load_prices(finflow.load("pretrain", words).env)
    assert seen(*words).lines[0] == "Prices: csv, frozen in s.snapshot"
