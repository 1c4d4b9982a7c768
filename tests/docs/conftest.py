"""A shell whose `python` is `warm.py`'s, and what a reader of the pages has beside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finflow.schema import STAGES

from .pages import ROOT

WARM = ROOT / "tests/docs/warm.py"
LIBRARIES = (
    "arch", "hydra", "jinja2", "pandas", "plotly.graph_objects", "pydantic", "rich.console", "rich.progress",
    "rich.table", "safetensors.torch", "scipy.optimize", "scipy.stats", "skfolio.datasets", "torch", "_pytest.config",
)  # fmt: skip
FINFLOW = tuple(f"finflow.stages.{name}" for name in ("audit", *STAGES))
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Shell:
    """Runs a line of bash in a folder whose `.venv/bin` comes first; `checkout` is where `finflow` is imported from."""

    folder: Path
    checkout: Path

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        paths = {"PATH": f"{self.folder / '.venv/bin'}:{os.environ['PATH']}", "PYTHONPATH": str(self.checkout)}
        outer = re.compile(r"MAKE|MFLAGS|(\w+_)?ARGS$|PYTHON$")  # of a `make test` around this
        kept = {key: value for key, value in os.environ.items() if not outer.match(key)}
        return subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env={**kept, **QUIET, **paths}, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip


def python_of(folder: Path, address: Path) -> None:
    """Put a `.venv` into `folder` whose python asks the warm one at `address`."""
    place = folder / ".venv/bin"
    place.mkdir(parents=True)
    program = place / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -s -E "{WARM}" ask "{address}" "$0" "$@"\n')
    program.chmod(0o755)
    (place / "activate").write_text(f'PATH="{place}:$PATH"\n')
    for stamp in ("runtime", "dev", "dashboard", "export"):  # as `make` leaves them: nothing is to be set up
        (folder / ".venv" / f"{stamp}.stamp").touch()


def started(address: Path, modules: Sequence[str], more: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """A warm Python that listens at `address`; it ends when its stdin is closed, as it is when this process ends."""
    server = subprocess.Popen(
        [sys.executable, str(WARM), "serve", str(address), *modules],
        env={**os.environ, **QUIET, **(more or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


@pytest.fixture(scope="session")
def warmed() -> Iterator[Callable[..., Path]]:
    """Starts a warm Python that has imported these modules, and gives its address."""
    servers: list[subprocess.Popen[str]] = []
    places: list[Path] = []

    def start(modules: tuple[str, ...], more: Mapping[str, str] | None = None) -> Path:
        address = Path(tempfile.mkdtemp(prefix="warm-")) / "socket"  # pytest's own paths are too long for one on macOS
        places.append(address.parent)
        servers.append(started(address, modules, more))
        return address

    yield start
    for server in servers:
        server.communicate()
    for place in places:
        shutil.rmtree(place)


@pytest.fixture(scope="session")
def bare(warmed: Callable[..., Path]) -> Path:
    """Address of a Python that has imported no FinFlow, for checkouts whose code is not this one's."""
    return warmed(LIBRARIES)


@pytest.fixture(scope="session")
def warm(warmed: Callable[..., Path]) -> Path:
    """Address of a Python that has imported this checkout's FinFlow."""
    return warmed((*LIBRARIES, *FINFLOW), {"PYTHONPATH": str(ROOT)})


def prices(folder: Path) -> None:
    """`prices.csv` and `long.csv`: six names on 1500 days, calm and wild by turns, so that every label occurs."""
    rng = np.random.default_rng(5)
    days = pd.bdate_range("2014-11-17", periods=1500).strftime("%Y-%m-%d")
    moves = rng.normal(0.0004, 0.009, (1500, 1)) + rng.normal(0, 0.01, (1500, 6))
    moves *= np.where(np.arange(1500) // 80 % 2, 1.6, 0.5)[:, None]
    wide = pd.DataFrame(
        50 * np.exp(moves.cumsum(0)), index=pd.Index(days, name="date"), columns=[f"T{i:02d}" for i in range(6)]
    )
    wide.to_csv(folder / "prices.csv")
    wide.melt(ignore_index=False, var_name="ticker", value_name="close").to_csv(folder / "long.csv")
