"""Break every formula of `mutations.yaml` on purpose, one at a time, and see that the named tests fail.

python -m benchmarks.mutations [WORD ...]    only entries whose text contains one of the words
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks/mutations.yaml"
COPIED = ("finflow", "conf", "experiments", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """`old`, which `file` holds once, becomes `new`; then every one of `tests` has to fail."""

    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutations() -> list[Mutation]:
    """The table."""
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def failed(root: Path, tests: list[str]) -> set[str]:
    """Tests, without their parameters, that fail under `root`.

    Raises
    ------
    RuntimeError
        If they cannot be run at all: code that cannot be imported proves nothing.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "-m", "", *tests]
    # The copy's own code, and no stale bytecode: two versions of a file may share size and second.
    own = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return {name.split("[")[0] for name in re.findall(r"^FAILED (\S+)", done.stdout, flags=re.MULTILINE)}


def main() -> int:
    """Print a line for each mutation; 1 if one of them is not seen by all of its tests."""
    words = sys.argv[1:]
    chosen = [m for m in mutations() if not words or any(word in f"{m.breaks} {m.file}" for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        if wrong := failed(root, sorted({test for mutation in chosen for test in mutation.tests})):
            print(f"fail unbroken: {', '.join(sorted(wrong))}")
            return 1
        for mutation in chosen:
            path = root / mutation.file
            sound = path.read_text(encoding="utf-8")
            path.write_text(sound.replace(mutation.old, mutation.new), encoding="utf-8")
            blind = sorted(set(mutation.tests) - failed(root, list(mutation.tests)))
            path.write_text(sound, encoding="utf-8")
            survivors += bool(blind)
            print(f"{'SURVIVES' if blind else 'seen'}: {mutation.breaks}", *blind, sep="\n    ", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} seen")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
