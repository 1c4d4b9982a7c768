import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finflow.errors import StorageError
from finflow.io.files import atomic_json, atomic_write, read_json
from finflow.io.weights import sha256_of


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    return path


def left_as_it_was(target: Path) -> bool:
    return target.read_bytes() == b"old" and os.listdir(target.parent) == [target.name]


def one_line(error: pytest.ExceptionInfo[StorageError], *parts: str) -> bool:
    text = str(error.value)
    return "\n" not in text and all(part in text for part in parts)


def test_writes_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o644)])
def test_mode_is_0644_less_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        atomic_write(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_sha256_known_answer(tmp_path: Path) -> None:
    atomic_write(tmp_path / "abc", b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(StorageError, match="no such file"):
        sha256_of(tmp_path / "none")


def test_data_and_folder_are_synced_around_the_rename(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noting_replace(source: Path, destination: Path) -> None:
        calls.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    atomic_write(target, b"new")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "disk full"), (errno.EROFS, "read-only"), (errno.EIO, "input/output error")]
)
def test_a_failing_disk_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: str
) -> None:
    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(StorageError) as error:
        atomic_write(target, b"new")
    monkeypatch.undo()
    assert one_line(error, str(target), reason)
    assert left_as_it_was(target)


def test_disk_that_fills_up_halfway(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = os.write, [5]

    def filling(descriptor: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(StorageError, match="disk full"):
        atomic_write(target, b"longer than five")
    assert left_as_it_was(target)


def test_partial_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    atomic_write(target, b"0123456789")
    monkeypatch.undo()
    assert target.read_bytes() == b"0123456789"


@pytest.mark.parametrize("blow", [KeyboardInterrupt, SystemExit])
def test_killed_before_the_rename_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, blow: type[BaseException]
) -> None:
    def killed(*_: object) -> None:
        raise blow

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(blow):
        atomic_write(target, b"new")
    assert left_as_it_was(target)


def test_sigkill_before_the_rename_leaves_the_old_file(target: Path) -> None:
    code = (
        "import os, pathlib, signal, sys; from finflow.io import files\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.atomic_write(pathlib.Path(sys.argv[1]), b'new')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -9
    assert target.read_bytes() == b"old"


def test_read_only_folder_for_real(tmp_path: Path) -> None:
    # In a process of its own, because root must first become someone whom permissions stop.
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    code = (
        "import os, pathlib, sys; from finflow.io import files\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: files.atomic_write(pathlib.Path('x'), b'new')\n"
        "except files.StorageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "x: cannot be written: permission denied; choose another folder with output_root=DIR\n"
    assert os.listdir(folder) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as error:
        atomic_write(tmp_path / "file" / "x", b"new")
    assert one_line(error, "cannot be written")


def test_json_keeps_order_and_floats(tmp_path: Path) -> None:
    value = {"b": 0.1 + 0.2, "a": np.float32(0.1), "c": np.int64(3), "d": None, "é": [True]}
    atomic_json(tmp_path / "x.json", value)
    back = read_json(tmp_path / "x.json")
    assert list(back) == list(value)
    assert back == {"b": 0.1 + 0.2, "a": float(np.float32(0.1)), "c": 3, "d": None, "é": [True]}


@pytest.mark.parametrize("bad", [float("nan"), np.float32("inf")])
def test_json_refuses_what_is_not_finite(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError):
        atomic_json(tmp_path / "x.json", {"a": bad})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, "\udcff"])
def test_damaged_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match=r"x\.json: damaged"):
        read_json(path)


def test_json_ends_with_a_newline(tmp_path: Path) -> None:
    atomic_json(tmp_path / "x.json", {})
    assert (tmp_path / "x.json").read_text() == json.dumps({}) + "\n"
