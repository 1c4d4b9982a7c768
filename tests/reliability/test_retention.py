"""Which checkpoints are kept, over ten thousand lives of a run that hypothesis draws, on a disk that is a dictionary.

The store is FinFlow's own; only what it calls to read, write, rename and remove a file is replaced, so that a save
costs microseconds and can fail, or be killed, before each of those calls.
"""

import errno
import os
from collections import Counter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from finflow.artifacts import checkpoints
from finflow.artifacts.checkpoints import FOLDER, MANIFEST, Checkpoints, Found
from finflow.errors import StorageError

LIVES, KEEP = 10_000, range(1, 6)
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
        path.disk.files[path.name] = (f"hash of {path.name}", metadata)
        return f"hash of {path.name}"

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


class Event(NamedTuple):
    """Something that befalls a run; of a save: whether it is the best so far, and before which call it fails."""

    what: str
    best: bool
    call: int


EVENTS = st.sampled_from(
    [
        Event(what, best, call)
        for what in ["save"] * 6 + ["fail", "kill", "damage", "open"]
        for best in (True, False, False)
        for call in range(CALLS)
    ]
)


class Life:
    """A run that saves, fails to save, is killed, loses a file, and goes on; what it must still have is kept beside.

    `past` holds, by name, the whole checkpoints of the run's own past, and which were the best when they came.
    """

    def __init__(self, keep: int) -> None:
        self.disk, self.keep = Disk(), keep
        Place.disk = self.disk
        self.store = self.opened()
        self.past: list[tuple[str, bool]] = []

    def opened(self) -> Checkpoints:
        return Checkpoints(Place("/run"), self.keep)  # type: ignore[arg-type]

    def befall(self, event: Event) -> None:
        if event.what == "save":
            self.save(event.best)
            assert len(self.disk.files) <= self.keep + 2  # the best and the manifest beside
        elif event.what == "damage":
            self.damage()
        elif event.what == "open":
            self.go_on()
        else:
            error = Killed() if event.what == "kill" else OSError(errno.ENOSPC, "No space left on device")
            self.disk.left, self.disk.error = event.call, error
            self.save(event.best)
        self.check()

    def save(self, best: bool) -> None:
        number = len(self.past) + 1
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
            # Before there is a manifest each kill leaves one more, until a save has tidied up.
            assert len(self.listed()) <= self.keep + 1 or MANIFEST not in self.disk.files


@pytest.mark.parametrize("keep", KEEP)
def test_best_and_newest_are_never_deleted(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_files(monkeypatch)

    @seed(keep)
    @given(st.lists(EVENTS, min_size=2, max_size=8))
    @settings(max_examples=LIVES // len(KEEP), database=None, deadline=None, suppress_health_check=list(HealthCheck))
    def survives(events: list[Event]) -> None:
        life = Life(keep)
        for event in events:
            life.befall(event)
            seen[event.what] += 1

    seen = Counter[str]()
    survives()
    assert min(seen[what] for what in ("save", "fail", "kill", "damage", "open")) > 100


def test_names_and_folder(tmp_path: Any) -> None:
    """The same on a real disk: the last two and the best."""
    store = Checkpoints(tmp_path, keep=2)
    for number in range(1, 8):
        store.save("episode", number, {"step": number}, {}, best=number in (2, 3))
    kept = sorted(path.name for path in (tmp_path / FOLDER).glob("*.safetensors"))
    assert kept == [f"{k:05d}-episode-{k}.safetensors" for k in (3, 6, 7)]
