"""Break every formula of `mutations.yaml` on purpose, one at a time, and see that the named tests fail.

python -m benchmarks.mutations [WORD ...]    only entries whose text contains one of the words
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks/mutations.yaml"
COPIED = ("finflow", "experiments", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """`old`, which `file` holds once, becomes `new`; then every one of `tests` has to fail."""

    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Failures:
    """Names of tests, without their parameters, that failed; a plugin of pytest."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take one outcome."""
        if report.failed:
            self.names.add(report.nodeid.split("[")[0])


def mutations() -> list[Mutation]:
    """The table."""
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def failed(root: Path, tests: list[str]) -> set[str]:
    """Tests that fail under `root`, in a process that has not imported its code yet.

    Raises
    ------
    RuntimeError
        If they cannot be run at all: code that cannot be imported proves nothing.
    """
    import pytest

    os.chdir(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True  # two versions of a file may share size and second
    found, said = Failures(), io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["-q", "--tb=no", "-p", "no:cacheprovider", *tests], plugins=[found])
    if code not in (0, 1):
        raise RuntimeError(said.getvalue()[-2000:])
    return found.names


def main() -> int:
    """Print a line for each mutation; 1 if one of them is not seen by all of its tests."""
    words = sys.argv[1:]
    chosen = [m for m in mutations() if not words or any(word in f"{m.breaks} {m.file}" for word in words)]
    survivors = 0
    os.environ["OMP_NUM_THREADS"] = "1"
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "scipy.stats", "pytest"])  # seconds of imports, once
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        if wrong := pool.submit(failed, root, sorted({test for m in chosen for test in m.tests})).result():
            print(f"fail unbroken: {', '.join(sorted(wrong))}")
            return 1
        for mutation in chosen:
            path = root / mutation.file
            sound = path.read_text(encoding="utf-8")
            path.write_text(sound.replace(mutation.old, mutation.new), encoding="utf-8")
            blind = sorted(set(mutation.tests) - pool.submit(failed, root, list(mutation.tests)).result())
            path.write_text(sound, encoding="utf-8")
            survivors += bool(blind)
            print(f"{'SURVIVES' if blind else 'seen'}: {mutation.breaks}", *blind, sep="\n    ", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} seen")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
