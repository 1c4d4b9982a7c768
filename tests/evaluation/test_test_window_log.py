"""The log of test-window openings counts, and shows when it was touched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finflow.errors import AuditError, StorageError
from finflow.evaluation.test_window_log import FILE_NAME, record_opening, verify_openings


def fill(root: Path) -> list[str]:
    order = [("aa", "2013"), ("aa", "2018"), ("bb", "2018"), ("aa", "2018")]
    found = [record_opening(root, data, fold, f"run-{i}", f"2024-01-0{i + 1}") for i, (data, fold) in enumerate(order)]
    assert [o.count for o in found] == [1, 1, 1, 2]  # counted by data and fold
    return [o.head for o in found]


def test_openings_are_counted_and_chained(tmp_path: Path) -> None:
    heads = fill(tmp_path / "outputs")
    assert verify_openings(tmp_path / "outputs") == 4
    assert all(verify_openings(tmp_path / "outputs", {"run": head}) == 4 for head in heads)
    last = json.loads((tmp_path / "outputs" / FILE_NAME).read_text().splitlines()[-1])
    assert last["hash"] == heads[-1]
    assert last["previous"] == heads[-2]
    assert verify_openings(tmp_path / "nothing here") == 0


@pytest.mark.parametrize("line", range(4))
@pytest.mark.parametrize("how", ["edit", "remove", "swap", "garbage"])
def test_tampering_is_named_by_line(tmp_path: Path, line: int, how: str) -> None:
    heads = fill(tmp_path)
    path = tmp_path / FILE_NAME
    lines = path.read_text().splitlines()
    if how == "edit":
        lines[line] = lines[line].replace('"run-', '"nur-')
    elif how == "remove":
        del lines[line]
    elif how == "swap":
        lines[line], lines[line - 1] = lines[line - 1], lines[line]
    else:
        lines[line] = "[1, 2"
    path.write_text("\n".join(lines) + "\n")
    content = path.read_bytes()
    with pytest.raises(AuditError) as caught:
        verify_openings(tmp_path, {"earlier": heads[0], "the last": heads[-1]})
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    assert (how, line) != ("remove", 3) or "that the last noted is gone" in str(caught.value)
    if (how, line) != ("remove", 3):  # a cut-off tail shows by the head alone
        with pytest.raises(AuditError, match=rf"{FILE_NAME}:\d: the log of test-window openings was changed"):
            record_opening(tmp_path, "aa", "2018", "run", "now")
        assert path.read_bytes() == content


def test_a_line_cut_short_by_a_kill_is_taken_back(tmp_path: Path) -> None:
    fill(tmp_path)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"number": 5, "finger')
    assert verify_openings(tmp_path) == 4
    assert record_opening(tmp_path, "aa", "2018", "run", "now").count == 3
    assert verify_openings(tmp_path) == 5


def test_processes_at_once_never_take_the_same_number(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from finflow.evaluation.test_window_log import record_opening\n"
        "for i in range(10): print(record_opening(Path(sys.argv[1]), 'aa', '2018', 'run', 'now').count)"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    counts = [int(n) for w in workers for n in w.communicate(timeout=60)[0].split()]
    assert sorted(counts) == list(range(1, 21))
    assert verify_openings(tmp_path) == 20


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        record_opening(tmp_path / "file", "aa", "2018", "run", "now")
