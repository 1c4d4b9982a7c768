"""The file that `offline.dataset=PATH` reads: what is written comes back, and nothing damaged."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from finflow.data.market import Market, Window
from finflow.envs.collect import Dataset, collect, dataset_bytes, load_dataset
from finflow.envs.ledger import Accounting
from finflow.errors import DataError

FACTS = {"data_fingerprint": "abc", "train": ["2015-01-01", "2016-01-01"], "accounting": {"cost_rate": 0.0015}}


@pytest.fixture(scope="module")
def dataset(lively: Market, make_world: Any, train: Window) -> Dataset:
    return collect(lively, make_world(lively, Accounting(0.0015)), train, 4, 25, 0.5, 0, FACTS)


@pytest.fixture
def path(tmp_path: Path, dataset: Dataset) -> Path:
    (tmp_path / "data.npz").write_bytes(dataset_bytes(dataset))
    return tmp_path / "data.npz"


@pytest.fixture
def refused() -> Callable[..., str]:
    def refuse(path: Path, wanted: dict[str, Any] | None = None) -> str:
        """The one line with which a file is refused."""
        with pytest.raises(DataError) as caught:
            load_dataset(path, FACTS if wanted is None else wanted)
        text = str(caught.value)
        assert text.startswith(f"offline.dataset={path}: ")
        assert "\n" not in text
        assert "make" in text  # the remedy
        return text

    return refuse


def rewritten(path: Path, **changed: Any) -> Path:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{name: array for name, array in {**arrays, **changed}.items() if array is not None})
    return path


def stored(path: Path, name: str) -> Any:
    with np.load(path) as file:
        return file[name].copy()


def test_round_trip(path: Path, dataset: Dataset) -> None:
    back = load_dataset(path, FACTS)
    assert back.facts == FACTS
    for name, array in dataset.arrays().items():
        assert back.arrays()[name].dtype == array.dtype
        assert_array_equal(back.arrays()[name], array)


def test_missing(tmp_path: Path, refused: Any) -> None:
    assert "no such file" in refused(tmp_path / "nowhere.npz")
    refused(tmp_path)  # a folder


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated(path: Path, refused: Any, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path)


def test_other_files(path: Path, refused: Any) -> None:
    single = io.BytesIO()
    np.save(single, np.arange(3))
    for content in (b"date,A\n2020-01-01,1\n", b"\x80\x04\x95", pickle.dumps({"row": 1}), single.getvalue()):
        path.write_bytes(content)
        assert "not a dataset of FinFlow" in refused(path)


def test_the_same_data_are_the_same_bytes(dataset: Dataset) -> None:
    assert dataset_bytes(dataset) == dataset_bytes(dataset)
    with zipfile.ZipFile(io.BytesIO(dataset_bytes(dataset))) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # of no clock


class Trap:
    sprung = False

    def __reduce__(self) -> Any:
        return (_spring, ())


def _spring() -> int:
    Trap.sprung = True
    return 1


@pytest.mark.parametrize("name", ["row", "executed", "facts"])
def test_objects_are_never_unpickled(path: Path, refused: Any, name: str) -> None:
    refused(rewritten(path, **{name: np.array([Trap()], dtype=object)}))
    assert not Trap.sprung


def test_a_flipped_byte_is_never_believed(path: Path, dataset: Dataset) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    headers = [at for at in range(len(data)) if data[at : at + 2] == b"PK"]
    beside = rng.choice(headers, 300) + rng.integers(90, size=300)  # offsets, sizes, shapes
    believed = 0
    for at in [*np.minimum(beside, len(data) - 1), *rng.integers(len(data), size=100)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = load_dataset(path, FACTS)
            except DataError as error:
                lines = str(error).splitlines()
            else:  # a byte that holds no content: a date in the archive's listing
                believed, lines = believed + 1, [""]
                for name, array in dataset.arrays().items():
                    assert_array_equal(found.arrays()[name], array)
        assert len(lines) == 1
    assert believed < 200


@pytest.mark.parametrize("name", [*Dataset.__dataclass_fields__])
def test_a_missing_array(path: Path, refused: Any, name: str) -> None:
    refused(rewritten(path, **{name: None}))


@pytest.mark.parametrize("facts", ["{", ""])
def test_facts_that_are_none(path: Path, refused: Any, facts: str) -> None:
    refused(rewritten(path, facts=np.array(facts)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_fingerprint", "other"),
        ("train", ["2015-01-01", "2017-01-01"]),
        ("rebalance", "weekly"),
    ],
)
def test_made_for_another_market_window_or_accounting(path: Path, refused: Any, name: str, value: Any) -> None:
    text = refused(path, {**FACTS, name: value})
    assert f"made with {name}={FACTS.get(name)!r}" in text
    assert repr(value) in text


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"cost_rate": 0.002}, "made with accounting.cost_rate=0.0015, this run has 0.002; make one with"),
        ({"cost_rate": 0.0015, "min_cash": 0.1}, "made with accounting.min_cash=None, this run has 0.1; make one with"),
    ],
)
def test_only_the_rule_that_differs_is_named(path: Path, refused: Any, wanted: dict[str, float], said: str) -> None:
    assert said in refused(path, {**FACTS, "accounting": wanted})


def test_long_facts_are_cut_short(path: Path, refused: Any) -> None:
    assert len(refused(path, {"assets": [f"T{i}" for i in range(500)]})) < 250 + len(str(path))


def test_the_facts_are_compared_as_json_keeps_them(path: Path) -> None:
    load_dataset(path, json.loads(json.dumps(FACTS)))
