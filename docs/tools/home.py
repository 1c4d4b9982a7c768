"""The README as the first page of the site: a link into docs/ leads to the page here, another is its words alone."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, "index.md", content=home((ROOT / "README.md").read_text(encoding="utf-8"))))
    return files


def home(readme: str) -> str:
    """The README with its links seen from docs/; a link to a file outside becomes its words."""

    def seen(match: re.Match[str]) -> str:
        words, target = match.groups()
        return f"[{words}]({target.removeprefix('docs/')})" if target.startswith("docs/") else words

    return _LINK.sub(seen, readme)
