"""The pages that a user reads: README, CONTRIBUTING and docs/, and the blocks in them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "refused"
"""Title of a block whose command ends in the error that the block after it shows."""
LANGUAGES = {"bash", "csv", "diff", "json", "python", "text", "yaml"}
WALKED = [ROOT / "docs/first-study.md", *sorted((ROOT / "docs/extending").glob("*.md"))]
"""Pages whose files are put into a copy of the checkout and whose commands all run there, see test_extending.py."""
INLINE = re.compile(r"`(?:\.venv/bin/)?((?:python|make) [^`]+)`")
FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```$', flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and line it begins at, its language, title and text."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """Words of each command of a bash block, comments left out; a backslash at a line's end continues it."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    text, name = page.read_text(), str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, found.start()) + 1, found[2], found[3] or "", found[4])
        for found in FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


def typed() -> dict[str, list[list[str]]]:
    """Words of every command of each page that no walk types, those within sentences and tables too."""
    found: dict[str, list[list[str]]] = {str(page.relative_to(ROOT)): [] for page in pages()}
    for block in all_blocks():
        walked = ROOT / block.page in WALKED and not block.title
        if block.language == "bash" and not walked and block.title != REFUSED:
            found[block.page] += block.commands()
    for page in pages():
        text = FENCE.sub("", page.read_text())
        found[str(page.relative_to(ROOT))] += [shlex.split(one) for one in INLINE.findall(text)]
    return found


def stage_of(words: Sequence[str]) -> str | None:
    """Stage of `python experiments/STAGE.py ...`."""
    found = re.fullmatch(r"experiments/(\w+)\.py", words[1]) if words[0] == "python" and len(words) > 1 else None
    return None if found is None else found[1]
