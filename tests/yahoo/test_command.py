"""`env=dow30` from the command line with the network down: one line and exit code 2, or the cache."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finflow.data.build import load_prices
from finflow.schema.sections import Env

from .conftest import LoopbackYahoo

COLLECT = Path(__file__).resolve().parents[2] / "experiments" / "collect.py"
SMALL = ["env.tickers=[AAA,BBB,CCC]", "env.start=2015-01-02", "env.end=2020-12-31"]


def collect(folder: Path, proxy_port: int) -> "subprocess.CompletedProcess[str]":
    """Run in `folder` with every connection sent to a port of this machine."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), f"http://127.0.0.1:{proxy_port}")
    proxies |= {name.upper(): address for name, address in proxies.items()}
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    line = [sys.executable, str(COLLECT), "env=dow30", *SMALL, "episodes=10", "env.episode_days=42"]
    return subprocess.run(
        line, cwd=folder, env={**kept, **proxies, "XDG_CACHE_HOME": str(folder / "client")}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def refused(done: "subprocess.CompletedProcess[str]", folder: Path) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Yahoo: asking for 3 tickers")
    assert len(lines) == 2
    assert not (folder / "outputs").exists() or not list((folder / "outputs").rglob("*.*"))
    return lines[1]


def test_the_network_down_and_no_cache_is_one_line_within_half_a_minute(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]  # bound but not listening: connections are refused
        begin = time.monotonic()
        line = refused(collect(tmp_path, port), tmp_path)
    assert time.monotonic() - begin < 30
    assert line.startswith("error: env.tickers: Yahoo is out of reach (no connection")
    assert "env=sp500" in line


@pytest.mark.slow
def test_a_network_that_swallows_everything_ends_within_half_a_minute_too(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        begin = time.monotonic()
        line = refused(collect(tmp_path, silent.getsockname()[1]), tmp_path)
    assert time.monotonic() - begin < 30
    assert "out of reach (no connection" in line


def test_with_a_cache_it_runs_without_a_network(
    market: LoopbackYahoo, env_of: Callable[..., Env], tmp_path: Path
) -> None:
    for ticker in ("AAA", "BBB", "CCC"):
        market.list_stock(ticker, first="2015-01-02")
    load_prices(env_of(first="2015-01-02"), tmp_path / "outputs" / "cache")
    done = collect(tmp_path, 1)
    assert done.returncode == 0, done.stderr
    assert "Yahoo" not in done.stderr
    assert (tmp_path / "dataset.npz").exists()
