"""The first study and every page of docs/extending, typed as they stand into a copy of the checkout.

A block with a title is a file. `diff` blocks change one that is there: lines with a blank before them must follow each
other in it just once, lines with a minus go, lines with a plus come. A bash block with a title is left out.
"""

import shlex
import shutil
from pathlib import Path

import pytest

from .conftest import Shell, prices, python_of
from .pages import ROOT, WALKED, Block, blocks
from .small import small

FILES = {"csv", "diff", "python", "yaml"}


def put(checkout: Path, block: Block) -> None:
    """Write or change the file that a block names."""
    path = checkout / block.title
    if block.language != "diff":
        assert not path.exists(), f"{block.place}: {block.title} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    text = path.read_text()
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    assert text.count(before) == 1, f"{block.place}: stands {text.count(before)} times in {block.title}:\n{before}"
    path.write_text(text.replace(before, after))


@pytest.fixture
def checkout(tmp_path: Path, bare: Path) -> Path:
    """A copy of the checkout with prices beside it."""
    for name in ("experiments", "finflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "conf").symlink_to("finflow/conf")
    for name in ("pyproject.toml", "tests/conftest.py", "tests/agents/conftest.py", "tests/agents/test_contract.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    prices(tmp_path)
    python_of(tmp_path, bare)
    return tmp_path


def walk(checkout: Path, page: Path) -> None:
    """Put every file in place, in the page's order, and run every command."""
    for block in blocks(page):
        if block.title and block.language in FILES:
            put(checkout, block)
        elif block.language == "bash" and not block.title:
            for words in block.commands():
                line = shlex.join(small(words)) if words[0] == "python" else " ".join(words)
                done = Shell(checkout, checkout).run(line)
                said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
                assert done.returncode == 0, f"{block.place}: {line}\n{said}"


@pytest.mark.parametrize("page", WALKED, ids=lambda path: path.stem)
def test_a_page_works_as_it_stands(page: Path, checkout: Path) -> None:
    walk(checkout, page)


def test_a_page_that_has_gone_stale_is_found(checkout: Path) -> None:
    block = Block("page.md", 1, "diff", "conf/env/csv.yaml", "-source: long\n+source: short\n")
    with pytest.raises(AssertionError, match=r"page.md:1: stands 0 times in conf/env/csv.yaml"):
        put(checkout, block)
