"""The site builds strictly, has every page in its navigation, searches, and loads nothing from elsewhere."""

import html
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from .test_architecture import purpose, rooms

ROOT = Path(__file__).resolve().parents[2]
needs_mkdocs = pytest.mark.skipif(
    find_spec("material") is None or find_spec("mkdocstrings") is None,
    reason="the tools of the site are missing; pip install -c constraints.txt -e '.[docs]'",
)
CHROMIUM = Path("/usr/bin/chromium")
LOADS = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")


def build(checkout: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(line, cwd=checkout, capture_output=True, text=True, timeout=120, check=False)


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: object) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        parts = entry.values() if isinstance(entry, dict) else entry
        assert not isinstance(parts, str)
        return {page for part in parts for page in pages(part)}  # type: ignore[union-attr]

    nav = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    made = {"overview.md", "contributing.md", "changelog.md"}  # of the top level, by docs/tools/site.py
    assert nav == there | made, "add the page to `nav` in mkdocs.yml"


def test_the_readme_links_to_files_that_exist() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_picture_is_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs/images").iterdir())
    assert {path.name: path.stat().st_size for path in pictures if path.stat().st_size > 150_000} == {}
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    assert [path.name for path in pictures if f"images/{path.name})" not in pages] == []


def test_every_picture_of_the_gallery_is_made_by_a_command_there() -> None:
    text = (ROOT / "docs/gallery.md").read_text()
    shown = re.findall(r"\]\((images/[^)]+)\)", text)
    assert shown
    assert [f"docs/{path}" for path in shown] == re.findall(
        r"^python docs/tools/picture\.py .* (\S+)$", text, re.MULTILINE
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site, built strictly."""
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT, place)
    assert done.returncode == 0, done.stderr
    return place


@needs_mkdocs
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path.relative_to(site): path.read_text() for path in site.rglob("*.html")}
    assert Path("index.html") in pages
    assert {str(name): LOADS.findall(page) for name, page in pages.items() if LOADS.search(page)} == {}


@needs_mkdocs
def test_the_api_of_every_room_is_told_from_its_docstrings(site: Path) -> None:
    for room in rooms():
        page = (site / "api" / f"{room}.html").read_text()
        assert html.escape(purpose(room).partition("`")[0], quote=False) in page
    losses = (site / "api/losses.html").read_text()
    assert 'id="finflow.losses.expectile_loss"' in losses
    written = "[B, n] executed weights of the data."  # described, not taken for a type
    assert f"<p>{written}</p>" in losses


@needs_mkdocs
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")
def test_the_search_works_without_a_server(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("f")
        page.locator("input[name=query]").press_sequentially("expectile")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        found = page.locator(".md-search-result__item").all_inner_texts()
        browser.close()
    assert any("expectile_loss" in text for text in found)
    assert [url for url in asked if not url.startswith("file:")] == []


@needs_mkdocs
def test_a_link_an_anchor_or_a_page_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    for name in ("docs", "finflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "docs/stray.md").write_text("[gone](gone.md) [no such part](monitoring.md#no-such-part)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for warning in ("link 'gone.md', but the target", "anchor '#no-such-part'", 'not included in the "nav"'):
        assert warning in done.stderr
