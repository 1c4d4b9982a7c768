"""The page as a reader sees it: drawn by Chromium, without one request leaving it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finflow.evaluation.result import Evaluation

HOSTILE = "<script>alert(1)</script>"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
if not CHROMIUM.exists():
    pytest.skip(f"{CHROMIUM} is not installed: the report cannot be looked at", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page opened once, with everything it complained about or asked for."""

    def __init__(self, browser: "playwright.Browser", path: Path, width: int, **options: object) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", state="attached", timeout=20_000)


@pytest.fixture(scope="module")
def desktop(browser: "playwright.Browser", page_file: Path) -> Visit:
    return Visit(browser, page_file, 1280)


def test_silent_and_alone(desktop: Visit, page_file: Path) -> None:
    assert desktop.said == []
    assert desktop.asked == [page_file.as_uri()]


UNDRAWN = """() => [...document.querySelectorAll('.plot')].filter((plot) => {
    const paths = [...plot.querySelectorAll('.scatterlayer path, .barlayer path')];
    return !paths.some((path) => path.getAttribute('d')?.length > 20);
  }).map((plot) => plot.id)"""


def test_every_chart_is_drawn(desktop: Visit) -> None:
    assert desktop.page.evaluate(UNDRAWN) == []
    assert desktop.page.locator(".plot").count() == 19
    assert desktop.page.locator("#equity .scatterlayer .trace").count() == 2 * 11 + 1


def test_a_click_on_the_legend_hides_a_strategy(desktop: Visit) -> None:
    desktop.page.locator("#equity .legendtoggle").nth(3).click()
    desktop.page.wait_for_function("document.querySelectorAll('#equity .scatterlayer .trace').length === 21")
    desktop.page.locator("#equity .legendtoggle").nth(3).click()
    desktop.page.wait_for_function("document.querySelectorAll('#equity .scatterlayer .trace').length === 23")


def test_the_table_sorts_on_click(desktop: Visit, evaluation: Evaluation) -> None:
    def column(index: int) -> list[str]:
        return desktop.page.locator(f"#metrics-table tbody td:nth-child({index})").all_inner_texts()

    header = desktop.page.locator("#metrics-table th button", has_text="Sharpe")
    by_sharpe = sorted(evaluation.metrics, key=lambda name: evaluation.metrics[name].sharpe or 0)
    header.click()
    assert column(1) == by_sharpe[::-1]
    header.click()
    assert column(1) == by_sharpe
    calmar = desktop.page.locator("#metrics-table th button", has_text="Calmar")
    for _ in range(2):  # undefined stays last whichever way
        calmar.click()
        assert column(6)[-1] == "–"
    desktop.page.locator("#metrics-table th button", has_text="Strategy").click()
    assert column(1)[0] == "1/N daily"


def test_a_hostile_ticker_is_only_text(desktop: Visit) -> None:
    assert HOSTILE in desktop.page.locator("#weights .legendtext").all_text_contents()
    assert HOSTILE in desktop.page.locator("#facts-table").inner_text()


def test_all_metrics_fit_on_a_desk(desktop: Visit) -> None:
    box = "document.querySelector('#metrics-table').parentElement"
    assert desktop.page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")


@pytest.fixture(scope="module")
def phone(browser: "playwright.Browser", page_file: Path) -> Visit:
    return Visit(browser, page_file, 390, is_mobile=True, has_touch=True, color_scheme="dark")


def test_a_phone_scrolls_tables_and_not_the_page(phone: Visit) -> None:
    width, wide = phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= 390
    assert wide == 390
    box = "document.querySelector('#metrics-table').parentElement"
    assert phone.page.evaluate(f"{box}.scrollWidth > {box}.clientWidth")
    crises = "document.querySelector('#stress-table').parentElement"
    assert phone.page.evaluate(f"{crises}.scrollWidth <= {crises}.clientWidth")
    assert phone.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert phone.said == []


@contextmanager
def printed(page: "playwright.Page") -> Iterator[None]:
    """The page as it is laid out on A4 within its margins."""
    page.set_viewport_size({"width": 695, "height": 900})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    yield
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 390, "height": 900})


def test_print_fits_the_paper(phone: Visit) -> None:
    with printed(phone.page):
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 695
        assert phone.page.evaluate("document.querySelector('#equity .main-svg').getAttribute('width')") == "690"
        assert phone.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


ACROSS_A_CUT = """() => {
    const axis = document.querySelector('#equity')._fullLayout.xaxis;
    return axis.d2p('2008-01-02') - axis.d2p('2001-03-01');
  }"""
"""Pixels between the last days of one window and the first of the next, years later."""


def test_intervals_stand_where_their_numbers_say(desktop: Visit, evaluation: Evaluation) -> None:
    bars = desktop.page.evaluate(
        """() => [...document.querySelectorAll('#comparison-table .mini')].map((mini) => {
             const [zero, bar, dot] = ['zero', 'bar', 'dot'].map((name) => mini.querySelector(`.${name}`));
             const boxes = [mini, zero, bar, dot].map((part) => part.getBoundingClientRect());
             return [boxes[0].width, boxes[1].x + 1, boxes[2].left, boxes[2].right, boxes[3].x + 5.5];
           })"""
    )
    found = evaluation.scrutiny.comparisons
    reach = 1.15 * max(max(abs(item.low), abs(item.high)) for item in found)
    assert len(bars) == len(found) == 3
    for (width, zero, low, high, dot), item in zip(bars, found, strict=True):
        assert low - zero == pytest.approx(item.low / reach * width / 2, abs=0.5)
        assert high - zero == pytest.approx(item.high / reach * width / 2, abs=0.5)
        assert dot - zero == pytest.approx(item.difference / reach * width / 2, abs=0.5)
    assert bars[0][1] == pytest.approx(bars[1][1], abs=0.5)  # one axis for all rows


@pytest.mark.parametrize("kind", ["seeds", "folds", "comparison"])
def test_a_study_reads_on_a_phone(browser: "playwright.Browser", study_files: dict[str, Path], kind: str) -> None:
    visit = Visit(browser, study_files[kind], 390, is_mobile=True, has_touch=True, color_scheme="dark")
    assert visit.said == []
    assert visit.asked == [study_files[kind].as_uri()]
    assert visit.page.evaluate(UNDRAWN) == []
    assert visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    table = visit.page.locator("#study-table")
    assert table.locator("tbody tr").count() == {"seeds": 10, "folds": 5, "comparison": 3}[kind]
    if kind != "folds":
        assert HOSTILE in table.inner_text()
    which, column = (3, 9) if kind == "comparison" else (1, 5)
    table.locator("th button", has_text="Sharpe").nth(which).click()
    sharpe = [float(text) for text in table.locator(f"tbody td:nth-child({column})").all_inner_texts()]
    assert sharpe == sorted(sharpe, reverse=True)
    if kind == "seeds":
        assert visit.page.locator("#seeds .scatterlayer .point").count() == 9 + 3
    if kind == "folds":
        assert visit.page.evaluate(ACROSS_A_CUT) < 15
    if kind != "folds":
        with printed(visit.page):
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= 695
    visit.page.close()
