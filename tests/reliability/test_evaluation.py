"""A kill while a run is judged leaves no partial file; judging it again says the same; a hostile name stays text."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.artifacts.runs import SUMMARY
from finflow.evaluation.test_window_log import verify_openings
from finflow.schema import Config

from .conftest import PRETRAIN, TINY, forked

HOSTILE = "<script>alert(1)</script>"
CALLS = ("write", "fsync", "replace", "unlink", "ftruncate")
SAME = ("returns.csv", "weights.csv", "ledger.csv", "metrics.json", "explanations.json", "summary.json")


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """What judges a tiny run on four names, one of them markup."""
    root = tmp_path_factory.mktemp("judged")
    rng = np.random.default_rng(0)
    days = pd.Index(pd.bdate_range("2015-01-05", periods=1300).strftime("%Y-%m-%d"), name="Date")
    prices = 50 * np.exp(np.cumsum(rng.normal(0.0003, 0.01, (1300, 4)), axis=0))
    pd.DataFrame(prices, index=days, columns=["A", HOSTILE, "C", "D"]).round(4).to_csv(root / "prices.csv")
    tiny = [word for word in TINY if "synthetic" not in word]
    line = [*tiny, *PRETRAIN, "env=csv", f"env.path={root / 'prices.csv'}", f"output_root={root}"]
    run = finflow.pretrain(finflow.load("pretrain", line), root / "run").run_dir
    return finflow.load("evaluate", [f"output_root={root}", f"run={run}", "evaluation.bootstrap_samples=100"])


def watched(patch: Callable[[object, str, object], object], look: Callable[[str], object]) -> None:
    """`look` before every call that changes the disk: what it sees is what a kill there would leave."""

    def before(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def seen(*args: Any, **more: Any) -> Any:
            look(name)
            return call(*args, **more)

        return seen

    for name in CALLS:
        patch(os, name, before(name, getattr(os, name)))


def whole(folder: Path) -> dict[str, bytes]:
    """Files of a folder under their own names, which a reader would believe."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".tmp"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_is_visible_is_complete_at_every_moment(
    judging: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / "evaluation", list[dict[str, bytes]]()

    def look(_: str) -> None:
        seen.append(whole(folder))
        verify_openings(Path(judging.output_root))

    with monkeypatch.context() as patch:
        watched(patch.setattr, look)
        finflow.evaluate(judging, folder)
    final = whole(folder)
    assert {*SAME, "report.html", "config.yaml", "run.json"} <= set(final)
    assert len(seen) > 30
    for files in seen:
        assert files.items() <= final.items()
        assert SUMMARY not in files or len(files) == len(final)  # the last of all: it says that the rest is there
    page = final["report.html"].decode()
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_killed_evaluation_is_no_evaluation(judging: Config, tmp_path: Path) -> None:
    """Killed with its report written but not yet in its place."""
    folder = tmp_path / "evaluation"

    def work() -> None:
        replace = os.replace

        def kill(source: Any, target: Any) -> None:
            if Path(target).name == "report.html":
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = kill  # type: ignore[assignment]
        finflow.evaluate(judging, folder)

    assert forked(work).code == -signal.SIGKILL
    assert not (folder / "report.html").exists()
    assert not (folder / SUMMARY).exists()
    again = finflow.evaluate(judging, tmp_path / "again")
    assert again.report.exists()
    once, more = whole(folder), whole(tmp_path / "again")
    assert {name: more[name] for name in SAME if name in once} == {name: once[name] for name in SAME if name in once}
    assert len([name for name in SAME if name in once]) == 5
