"""What refusals say is to be done with a folder, a snapshot, a fold or a header is done here; then the data is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.config.compose import load
from finflow.data.build import build_market
from finflow.data.market import make_fold
from finflow.errors import FinFlowError

DAYS = pd.date_range("2012-01-02", periods=700, freq="B", name="Date")
CLOSES = pd.DataFrame(
    50 * np.exp(np.random.default_rng(0).normal(0, 0.01, (700, 3)).cumsum(axis=0)), DAYS, ["AA", "BB", "CC"]
)


def read(words: list[str]) -> int:
    env = load("pretrain", words).env
    return len(build_market(env).dates)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(FinFlowError) as caught:
        act()
    assert caught.value.exit_code == 2
    return str(caught.value)


def one(folder: Path, name: str, column: str = "Close", file: str = ".csv") -> None:
    pd.DataFrame({column: CLOSES[name], "Volume": 1e6}).to_csv(folder / f"{name}{file}")


def full(folder: Path) -> None:
    for name in CLOSES:
        one(folder, name)


def empty(_: Path) -> None: ...


def alone(folder: Path) -> None:
    one(folder, "AA")


def no_closes(folder: Path) -> None:
    full(folder)
    one(folder, "BB", column="Last trade of it")


def twice(folder: Path) -> None:
    full(folder)
    one(folder, "BB", file=".csv.gz")


FOLDERS: dict[str, tuple[Callable[[Path], None], str, Callable[[Path], object]]] = {
    "empty": (empty, "put one of each ticker there", full),
    "one ticker": (alone, "put one of each ticker there", full),
    "no closes": (no_closes, "name the closes so", lambda folder: one(folder, "BB")),
    "twice": (twice, "keep one", lambda folder: (folder / "BB.csv.gz").unlink()),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    spoil, remedy, mend = FOLDERS[name]
    words = ["env=csv", f"env.path='{tmp_path}'"]
    spoil(tmp_path)
    assert remedy in refusal(lambda: read(words))
    mend(tmp_path)
    assert read(words) == 700


def headed(fields: list[str]) -> pd.DataFrame:
    return pd.concat({field: CLOSES * (1e4 if field == "Volume" else 1) for field in fields}, axis=1)


HEADERS: dict[str, tuple[pd.DataFrame, str, pd.DataFrame]] = {
    "no closes": (headed(["High", "Volume"]), "no row of closes", headed(["High", "Volume", "Close"])),
    "no close of one": (
        headed(["Close", "Volume"]).drop(columns=[("Close", "BB")]), "add the column, or remove its others",
        headed(["Close", "Volume"]).drop(columns=[("Close", "BB"), ("Volume", "BB")]),
    ),
    "a field twice": (
        pd.concat([headed(["Close"]), headed(["Close"])[[("Close", "AA")]]], axis=1), "keep one", headed(["Close"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_two_header_rows(name: str, tmp_path: Path) -> None:
    spoilt, remedy, mended = HEADERS[name]
    words = ["env=csv", f"env.path='{tmp_path / 'p.csv'}'"]
    spoilt.to_csv(tmp_path / "p.csv")
    assert remedy in refusal(lambda: read(words))
    mended.to_csv(tmp_path / "p.csv")
    assert read(words) == 700


def test_a_snapshot_of_other_settings_or_damaged_gives_way_to_a_new_file(tmp_path: Path) -> None:
    CLOSES.to_csv(tmp_path / "p.csv")
    words = ["env=csv", f"env.path='{tmp_path / 'p.csv'}'"]
    path = tmp_path / "s.snapshot"
    assert read([*words, f"env.snapshot='{path}'"]) == 700
    later = [*words, "env.tickers=[AA,BB]"]
    assert "name a new file for other settings" in refusal(lambda: read([*later, f"env.snapshot='{path}'"]))
    assert read([*later, f"env.snapshot='{tmp_path / 'other.snapshot'}'"]) == 700
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert "restore it from a copy, or name a new file" in refusal(lambda: read([*words, f"env.snapshot='{path}'"]))
    path.write_bytes(whole)
    assert read([*words, f"env.snapshot='{path}'"]) == 700
    assert "name a file" in refusal(lambda: read([*words, f"env.snapshot='{tmp_path}'"]))


def test_signals_are_named_and_placed_as_told(tmp_path: Path) -> None:
    CLOSES.to_csv(tmp_path / "p.csv")
    folder = tmp_path / "signals"
    folder.mkdir()
    words = ["env=csv", f"env.path='{tmp_path / 'p.csv'}'", f"env.signals='{folder}'"]
    assert "put a CSV a signal there" in refusal(lambda: read(words))
    CLOSES.pct_change().to_csv(folder / "my signal!.csv")
    assert "use letters, digits and . _ + - alone" in refusal(lambda: read(words))
    (folder / "my signal!.csv").rename(folder / "my_signal.csv")
    assert read(words) == 700


def test_an_unknown_fold_gives_way_to_a_named_one() -> None:
    config = load("pretrain", ["env=sp500"])
    market = build_market(config.env)
    said = refusal(lambda: make_fold(market, config.env, "1999"))
    for name in said.partition("choose one of ")[2].split(", "):
        assert make_fold(market, config.env, name).name
