"""The page of a sweep in a browser: everything is drawn, nothing is cut off or lies over something else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finflow.config.compose import load
from finflow.stages.sweep import collect_sweep

from .made import fail, finish, made_sweep
from .tiny import SMALL, TUNE

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
if not CHROMIUM.exists():
    pytest.skip(f"{CHROMIUM} is not installed: the page cannot be looked at", allow_module_level=True)

BOXES = "names => names.map(n => [...document.querySelectorAll(n)].map(e => e.getBoundingClientRect().toJSON()))"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve jobs over two parameters, one of a value that is long to write; one diverged, one was killed."""
    grid = ["algo.cql.alpha=1,5,10", "algo.lr=1e-4,3e-4,1e-3,1e12"]
    folder = made_sweep(tmp_path_factory.mktemp("page") / "s", [*SMALL, *TUNE, *grid])
    rng = np.random.default_rng(0)
    for at, job in enumerate(folder.manifest().jobs):
        if at == 7:
            fail(folder, job, "diverged", "episode 1, update 2: critic_loss is not finite; lower algo.lr")
        elif at == 8:
            fail(folder, job, "killed", "ended by SIGKILL; if nobody did that, the machine ran out of memory")
        else:
            finish(folder, job, 0.8553 + 2e-4 * rng.standard_normal())
    return collect_sweep(load("sweep", [f"dir='{folder.path}'"])).page


@pytest.fixture(scope="module", params=[1200, 400], ids=["wide", "narrow"])
def page(page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        page.set_default_timeout(120_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        yield page
        browser.close()


def test_every_chart_is_drawn_and_the_page_fits(page: Any) -> None:
    assert page.complaints == []
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.main-svg')).map(p => p.id)"
    )
    assert drawn == ["parallel", "importance", "effect-0", "effect-1", "pair-0"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#unfinished-table tbody tr").count() == 2


def test_the_legend_lies_beside_the_title_of_the_axis(page: Any) -> None:
    (legend,), (title,) = page.evaluate(BOXES, ["#importance .legend", "#importance .xtitle"])
    assert legend["bottom"] <= title["top"] or title["bottom"] <= legend["top"]


def test_every_point_lies_within_its_axes(page: Any) -> None:
    for key in ("effect-0", "effect-1"):
        points, (plot,) = page.evaluate(BOXES, [f"#{key} .point", f"#{key} .nsewdrag"])
        assert len(points) >= 10
        middles = [(point["top"] + point["bottom"]) / 2 for point in points]
        assert plot["top"] + 1 < min(middles)
        assert max(middles) < plot["bottom"] - 1


def test_a_long_value_leaves_room_for_the_map(page: Any) -> None:
    labels = page.locator("#pair-0 .ytick text, #pair-0 .xtick text").all_text_contents()
    assert "1e+12" in labels
    (plot,), (whole,) = page.evaluate(BOXES, ["#pair-0 .nsewdrag", "#pair-0"])
    assert plot["width"] > whole["width"] / 2


def test_names_of_facts_are_not_broken_into_letters(page: Any) -> None:
    (names,) = page.evaluate(BOXES, ["#facts-table td:first-child"])
    assert min(name["width"] for name in names) > 80
