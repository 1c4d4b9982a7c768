"""The file that `collect.py` writes: whole or not there, the same bytes for the same data."""

import resource
from pathlib import Path

import pytest

import finflow
from finflow.errors import StorageError

SMALL = ["env=synthetic", "env.synthetic.days=1400", "env.synthetic.assets=5", "env.episode_days=42"]
LIMIT = 8192  # bytes of one file: room for a run's record, not for the data


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    return [*SMALL, f"output_root={tmp_path / 'outputs'}", f"out={tmp_path / 'data' / 'mine.npz'}", "episodes=5"]


def test_a_full_disk_leaves_the_old_file_whole_and_no_part_of_a_new_one(line: list[str]) -> None:
    path = finflow.collect(finflow.load("collect", line)).dataset
    good = path.read_bytes()
    assert len(good) > 2 * LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(StorageError) as caught:
            finflow.collect(finflow.load("collect", [*line, "seed=1"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value).startswith(f"{path}: cannot be written: ")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == good
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_command_writes_the_same_bytes(line: list[str], tmp_path: Path) -> None:
    again = tmp_path / "again.npz"
    first = finflow.collect(finflow.load("collect", line)).dataset
    assert finflow.collect(finflow.load("collect", [*line, f"out={again}"])).dataset == again
    assert again.read_bytes() == first.read_bytes()
