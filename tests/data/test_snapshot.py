"""A frozen data set: the same market to the bit without its source, and nothing but what was frozen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finflow.data import build
from finflow.data.build import build_market, load_prices
from finflow.data.prices import Prices
from finflow.data.snapshot import freeze, thaw
from finflow.errors import ConfigError, DataError, StorageError
from finflow.schema.sections import Env


@pytest.fixture
def study(small_env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Env:
    """A synthetic market with a volume, a user's signal, benchmark and cash rate, in files that can be taken away."""
    prices = load_prices(small_env)
    days = [str(day) for day in prices.dates]
    levels = np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, len(days))))
    (tmp_path / "level.csv").write_text(
        "date,level\n" + "".join(f"{day},{v!r}\n" for day, v in zip(days, levels.tolist(), strict=True))
    )
    (tmp_path / "rate.csv").write_text(f"date,rate\n{days[0]},0.02\n{days[700]},0.03\n")
    values = np.random.default_rng(2).normal(size=(len(days), 2))
    (tmp_path / "value.csv").write_text(
        f"date,{prices.tickers[0]},{prices.tickers[1]}\n"
        + "".join(f"{day},{a!r},{b!r}\n" for day, (a, b) in zip(days, values.tolist(), strict=True))
    )
    make = build.SOURCES["synthetic"]
    monkeypatch.setitem(
        build.SOURCES, "synthetic", lambda env, cache: replace(make(env, cache), volume=1e6 + prices.close)
    )
    return small_env.model_copy(
        update={
            "signals": str(tmp_path / "value.csv"),
            "benchmark": str(tmp_path / "level.csv"),
            "cash_yield": str(tmp_path / "rate.csv"),
            "tickers": ["SYN03", "SYN01", "SYN02"],
            "end": "2005-03-01",
            "snapshot": str(tmp_path / "study.snapshot"),
        }
    )


def gone(env: Env, cache: Path | None) -> Prices:
    raise AssertionError("the source is not there any more")


def test_a_study_reruns_to_the_bit_without_source_and_files(
    study: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = build_market(study.model_copy(update={"snapshot": None}))
    first = build_market(study)
    assert "study.snapshot holds 3 names" in capsys.readouterr().err
    for name in ("value", "level", "rate"):
        (tmp_path / f"{name}.csv").unlink()
    monkeypatch.setitem(build.SOURCES, "synthetic", gone)
    again = build_market(study)
    assert capsys.readouterr().err == ""
    assert plain.fingerprint == first.fingerprint == again.fingerprint
    assert again.warnings == first.warnings
    assert again.assets == ("SYN03", "SYN01", "SYN02", "CASH")
    for name in ("dates", "close", "returns", "status", "features", "market_features", "regime", "benchmark"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plain, name))


def test_a_flipped_bit_and_an_edit_are_refused(study: Env) -> None:
    load_prices(study)
    path = Path(str(study.snapshot))
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    for at in (head + 5, len(whole) - 3, whole.index(b"SYN03")):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(StorageError, match=r"study\.snapshot: damaged or edited"):
            load_prices(study)
    for part in (whole[: len(whole) // 2], b"", b"date,AA,BB\n2020-01-02,1,2\n"):
        path.write_bytes(part)
        with pytest.raises(DataError, match="no snapshot of FinFlow, or cut short"):
            load_prices(study)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tickers": ["SYN01", "SYN02", "SYN03"]}, 'env.tickers=["SYN03", "SYN01", "SYN02"], not ["SYN01"'),
        ({"end": None}, 'env.end="2005-03-01", not null'),
        ({"signals_lag": 0}, 'env.signals="of lag 1", not "of lag 0"'),
        ({"benchmark": "equal_weight"}, 'env.benchmark="a file", not "equal_weight"'),
        ({"source": "csv", "synthetic": None, "path": "x"}, 'env.source="synthetic", not "csv"'),
    ],
)
def test_other_settings_are_refused(change: dict[str, object], said: str, study: Env) -> None:
    load_prices(study)
    with pytest.raises(ConfigError) as caught:
        load_prices(study.model_copy(update=change))
    assert said in str(caught.value)
    assert "name a new file" in str(caught.value)


def test_costs_and_other_rules_may_differ(study: Env) -> None:
    load_prices(study)
    assert len(load_prices(study.model_copy(update={"cost_bps": 1.0, "min_history": 100, "start": "2003-01-02"})).dates)


def test_a_folder_and_a_place_that_cannot_be_written_are_named(study: Env, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder; name a file"):
        load_prices(study.model_copy(update={"snapshot": str(tmp_path)}))
    with pytest.raises(StorageError, match=r"level\.csv/x: cannot be written"):
        load_prices(study.model_copy(update={"snapshot": str(tmp_path / "level.csv" / "x")}))


def test_a_later_format_is_named(study: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finflow.data.snapshot.FORMAT", 2)
    freeze(tmp_path / "later", load_prices(study.model_copy(update={"snapshot": None})), study)
    monkeypatch.undo()
    with pytest.raises(DataError, match="of format 2, this FinFlow reads 1"):
        thaw(tmp_path / "later", study)
