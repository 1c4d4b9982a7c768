"""The site builds strictly, has every page in its navigation, and loads nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
needs_mkdocs = pytest.mark.skipif(
    find_spec("material") is None, reason="mkdocs-material is missing; pip install -c constraints.txt -e '.[docs]'"
)
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
    assert nav == there | {"index.md"}, "add the page to `nav` in mkdocs.yml"


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


@needs_mkdocs
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.html")}
    assert Path("index.html") in pages
    assert {str(name): LOADS.findall(page) for name, page in pages.items() if LOADS.search(page)} == {}


@needs_mkdocs
def test_a_link_an_anchor_or_a_page_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "docs/stray.md").write_text("[gone](gone.md) [no such part](monitoring.md#no-such-part)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for warning in ("link 'gone.md', but the target", "anchor '#no-such-part'", 'not included in the "nav"'):
        assert warning in done.stderr
