"""A full, read-only or failing disk: exit 3 in one line, what was there stays, nothing partial, and on it goes."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finflow.artifacts.checkpoints import FOLDER, Checkpoints
from finflow.errors import StorageError

from .conftest import Tiny, forked, tree_hash

Wanted = dict[str, dict[str, bytes]]
ERRORS = {
    errno.ENOSPC: "disk full; free some space",
    errno.EIO: "input/output error; check the disk",
    errno.EROFS: "read-only; choose another folder",
    errno.EDQUOT: "disk quota used up; free some space",
}


class Failing:
    """Stands before the calls of `os` that change the disk: the `at`-th of them fails with `error`, once.

    Parameters
    ----------
    where : calls on other files are let through; of those that take a descriptor, all count.
    """

    CALLS = ("open", "write", "fsync", "replace", "unlink")

    def __init__(self, at: int, error: int, patch: Callable[[object, str, object], object] = setattr) -> None:
        self.at, self.error, self.count = at, error, 0
        for name in self.CALLS:
            patch(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **more: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **more)
            self.count += 1
            if self.count - 1 == self.at:
                if name == "write":  # half of it is on the disk
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(self.error, os.strerror(self.error))
            return call(*args, **more)

        return failing


def state(number: int) -> dict[str, Any]:
    return {"weights": torch.full((50,), float(number)), "days": np.arange(number)}


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_save_that_fails_anywhere_leaves_the_earlier_ones(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(20):
        folder = tmp_path / str(at)
        store = Checkpoints(folder, keep=1)
        store.save("episode", 1, state(1), {}, best=True)
        store.save("episode", 2, state(2), {})
        with monkeypatch.context() as patch:
            failing = Failing(at, error, patch.setattr)
            try:
                store.save("episode", 3, state(3), {})
            except StorageError as refused:
                said = str(refused)
            else:
                said = ""
        assert bool(said) == (at < failing.count)
        if not said:
            break
        assert said.startswith(str(folder))
        assert ERRORS[error] in said
        assert not list(folder.rglob(".tmp*"))
        found = Checkpoints(folder, keep=1).newest()
        assert found is not None
        assert not found.refused
        assert found.state["weights"][0] in (2, 3)  # 3 where only tidying up failed
        for path in (folder / FOLDER).glob("*.safetensors"):
            assert path.name[:5] in ("00001", "00002", "00003")
        assert (folder / FOLDER / "00001-episode-1.safetensors").exists()  # the best
    assert at == 11  # open, write, fsync, rename, folder's fsync, of file and manifest; and one that is removed


def fails(tiny: Tiny, stage: str, folder: Path, prepare: Callable[[], object], **changes: object) -> str:
    """What a run says that ends with exit code 3."""

    def work() -> None:
        prepare()
        tiny.train(stage, folder, **changes)

    ended = forked(work)
    assert ended.code == 3, ended.said
    assert "Traceback" not in ended.said
    assert not [path for path in folder.rglob("*") if path.name.startswith(".tmp")]
    said = ended.said.splitlines()[-1]
    assert said.startswith(f"error: {folder}")
    return said


def at_save(number: int, do: Callable[[], object]) -> None:
    """Do it at the begin of the `number`-th save of a checkpoint."""
    save, count = Checkpoints.save, iter(range(1, 1000))

    def watched(store: Checkpoints, *args: Any, **more: Any) -> Path:
        if next(count) == number:
            do()
        return save(store, *args, **more)

    Checkpoints.save = watched  # type: ignore[method-assign]


def goes_on(tiny: Tiny, wanted: Wanted, stage: str, folder: Path) -> None:
    ended = forked(lambda: tiny.train(stage, folder, resume=True))
    assert ended.code == 0, ended.said
    assert tiny.results(folder) == wanted[stage]


def test_a_disk_that_fills_up_between_two_checkpoints(tiny: Tiny, wanted: Wanted, tmp_path: Path) -> None:
    folder, least = tmp_path / "run", 20_000
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (least, least))  # noqa: E731
    said = fails(tiny, "pretrain", folder, lambda: at_save(2, limit))
    assert "larger than files may be here" in said
    (earlier,) = (folder / FOLDER).glob("*.safetensors")
    assert earlier.stat().st_size > least
    found = Checkpoints(folder, keep=2).newest()
    assert found is not None
    assert not found.refused
    goes_on(tiny, wanted, "pretrain", folder)


def test_an_error_of_the_disk_in_a_resumed_run(
    tiny: Tiny, wanted: Wanted, cut: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(cut["finetune"], folder)
    before = {path.name: path.read_bytes() for path in (folder / FOLDER).glob("*.safetensors")}
    assert "input/output error" in fails(
        tiny, "finetune", folder, lambda: at_save(1, lambda: Failing(2, errno.EIO)), resume=True
    )
    assert {path.name: path.read_bytes() for path in (folder / FOLDER).glob("*.safetensors")} == before
    goes_on(tiny, wanted, "finetune", folder)


def test_a_full_disk_cuts_no_line_of_the_metrics(tiny: Tiny, cut: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(cut["finetune"], folder)

    def full() -> None:
        from finflow.tracking import sink

        def write_all(descriptor: int, data: bytes) -> None:
            os.write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        sink.write_all = write_all

    said = fails(tiny, "finetune", folder, full, resume=True)
    assert said == f"error: {folder / 'metrics.jsonl'}: cannot be written: disk full; free some space"
    assert (folder / "metrics.jsonl").read_bytes().endswith(b"}\n")


def read_only() -> None:
    """Every call that would change the disk fails, as on a file system that is mounted read-only."""
    opened = os.open

    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def only_read(path: Any, flags: int, *args: Any, **more: Any) -> int:
        return refused() if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) else opened(path, flags, *args, **more)

    os.open, os.mkdir, os.unlink, os.replace = only_read, refused, refused, refused  # type: ignore[assignment]


def test_a_read_only_folder_is_left_as_it_is(tiny: Tiny, cut: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(cut["finetune"], folder)
    before = tree_hash(folder)
    assert "read-only; choose another folder" in fails(tiny, "finetune", folder, read_only, resume=True)
    assert tree_hash(folder) == before
    assert "read-only; choose another folder" in fails(tiny, "pretrain", tmp_path / "new", read_only)
    assert not (tmp_path / "new").exists()
