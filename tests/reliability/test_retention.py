"""Which checkpoints are kept, over ten thousand random lives of a run on a disk that is a dictionary.

The store is FinFlow's own; only what it calls to read, write, rename and remove a file is replaced, so that a save
costs microseconds and can fail, or be killed, before each of those calls.
"""

import errno
import os
import random
from pathlib import PurePosixPath
from typing import Any

import pytest

from finflow.artifacts import checkpoints
from finflow.artifacts.checkpoints import FOLDER, MANIFEST, Checkpoints, Found
from finflow.errors import StorageError

LIVES = 10_000
CALLS = 6  # of a save: file, reading it back, manifest, its fsync, and what is removed


class Killed(BaseException):
    """What a SIGKILL is to the store: nothing after it is done any more."""


class Disk:
    """Files by name: a manifest's content, or a checkpoint's hash and whether it can be read."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.left: int | None = None  # calls until the next one fails
        self.error: BaseException = OSError()
        self.dead = False

    def call(self) -> None:
        if self.dead:
            raise Killed
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left, self.dead = None, isinstance(self.error, Killed)
                raise self.error


class Place(PurePosixPath):
    """A path on the disk that `disk` is."""

    disk = Disk()

    def exists(self) -> bool:
        return self.name in self.disk.files

    def is_dir(self) -> bool:
        return True

    def resolve(self) -> "Place":
        return self

    def unlink(self, missing_ok: bool = False) -> None:
        self.disk.call()
        self.disk.files.pop(self.name, None)


def replace_files(patch: pytest.MonkeyPatch) -> None:
    def save(path: Place, tensors: Any, metadata: dict[str, Any]) -> str:
        path.disk.call()
        path.disk.files[path.name] = (f"hash of {metadata['name']}", metadata)
        return f"hash of {metadata['name']}"

    def read(path: Place, sha256: str | None = None) -> Any:
        if path.disk.files.get(path.name, (None,))[0] is None:
            raise StorageError(f"{path}: damaged or missing")
        return {}, path.disk.files[path.name][1]

    def hashed(path: Place) -> str:
        path.disk.call()
        return str(path.disk.files[path.name][0])

    def write(path: Place, data: bytes) -> None:
        path.disk.call()
        path.disk.files[path.name] = data
        path.disk.call()  # the folder's fsync, after the rename

    patch.setattr(checkpoints, "save_weights", save)
    patch.setattr(checkpoints, "load_weights", read)
    patch.setattr(checkpoints, "sha256_of", hashed)
    patch.setattr(checkpoints, "atomic_write", write)
    patch.setattr(checkpoints, "read_json", lambda path: checkpoints.json.loads(path.disk.files[path.name]))
    patch.setattr(os, "listdir", lambda path: list(path.disk.files))


class Life:
    """A run that saves, fails to save, is killed, loses a file, and goes on; what it must still have is kept beside.

    `newest` and `best` are names of the last whole checkpoint and of the last best of the run's own past.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.disk, self.keep = rng, Disk(), rng.randint(1, 5)
        Place.disk = self.disk
        self.store = self.opened()
        self.past: list[tuple[str, bool]] = []

    def opened(self) -> Checkpoints:
        return Checkpoints(Place("/run"), self.keep)  # type: ignore[arg-type]

    def save(self, error: BaseException | None = None) -> None:
        best = self.rng.random() < 0.3
        number = len(self.past) + 1
        if error is not None:
            self.disk.left, self.disk.error = self.rng.randrange(CALLS), error
        try:
            path = self.store.save("episode", number, {}, {"past": self.past}, best=best)
            self.past.append((path.name, best))
            self.disk.left = None
        except (StorageError, Killed, OSError):
            # What was not announced may be there, whole and listed, or not at all.
            self.disk.left = None
            known = [name for name, _ in self.past]
            self.past += [(name, best) for name, best in self.listed() if name not in known and self.whole(name)]
            self.disk.dead = False
            self.go_on()  # a save that failed has ended its process, as a kill does

    def listed(self) -> list[tuple[str, bool]]:
        """What the manifest lists; before there is one, the first file, which vouches for itself."""
        if MANIFEST in self.disk.files:
            entries = checkpoints.json.loads(self.disk.files[MANIFEST])["checkpoints"]
            return [(entry["name"], entry["best"]) for entry in entries]
        return [(name, metadata["best"]) for name, (_, metadata) in self.disk.files.items()]

    def damage(self) -> None:
        """The newest is lost, and the run is taken up from the one before."""
        names = [name for name, _ in self.listed() if self.whole(name)]
        if len(names) > 1:
            self.disk.files[names[-1]] = (None, self.disk.files[names[-1]][1])
            # An older best went when this one came, if this was the best.
            self.past = [each for each in self.past if each in self.listed()]
            self.go_on()

    def go_on(self) -> None:
        self.store = self.opened()
        found: Found | None = self.store.newest()
        if found is None:
            assert not self.past
            return
        # One that a kill kept from being removed is there, but listed no more.
        assert found.path.name == max(name for name, _ in self.listed() if self.whole(name))
        del self.past[[name for name, _ in self.past].index(found.path.name) + 1 :]
        self.store.go_on_from(found)

    def whole(self, name: str) -> bool:
        return self.disk.files.get(name, (None,))[0] is not None

    def check(self) -> None:
        """The newest and the best are there, and no more than was asked for once a save has tidied up."""
        if self.past:
            assert self.whole(self.past[-1][0]), self.past
            best = [name for name, best in self.past if best]
            if best:
                assert self.whole(best[-1]), (self.past, sorted(self.disk.files))
            assert len(self.listed()) <= self.keep + 1


@pytest.mark.parametrize("part", range(4))
def test_best_and_newest_are_never_deleted(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_files(monkeypatch)
    seen = dict.fromkeys(("save", "fail", "kill", "damage", "open"), 0)
    for seed in range(part * LIVES // 4, (part + 1) * LIVES // 4):
        life = Life(random.Random(seed))
        for _ in range(life.rng.randint(2, 8)):
            (what,) = life.rng.choices(list(seen), weights=[6, 1, 1, 0.5, 1])
            seen[what] += 1
            if what == "save":
                life.save()
                assert len(life.disk.files) <= life.keep + 2  # the best and the manifest beside
            elif what == "fail":
                life.save(OSError(errno.ENOSPC, "No space left on device"))
            elif what == "kill":
                life.save(Killed())
            elif what == "damage":
                life.damage()
            else:
                life.go_on()
            life.check()
    assert min(seen.values()) > 100


def test_names_and_folder(tmp_path: Any) -> None:
    """The same on a real disk: the last two and the best."""
    store = Checkpoints(tmp_path, keep=2)
    for number in range(1, 8):
        store.save("episode", number, {"step": number}, {}, best=number in (2, 3))
    kept = sorted(path.name for path in (tmp_path / FOLDER).glob("*.safetensors"))
    assert kept == [f"{k:05d}-episode-{k}.safetensors" for k in (3, 6, 7)]
