"""Pages of the site that stand in no file of docs/: the pages of the top level, and the API by room from docstrings."""

import re
from pathlib import Path
from tomllib import loads

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File of the top level -> its page on the site."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API to the navigation."""
    assert config.nav is not None
    config.nav.append({"API": ["api/index.md", *(f"api/{room}.md" for room in rooms())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {page: seen_from_docs((ROOT / name).read_text(encoding="utf-8")) for name, page in TOP_LEVEL.items()}
    pages["api/index.md"] = "# From Python\n\n::: finflow\n    options: {show_submodules: false}\n"
    pages |= {f"api/{room}.md": f"# {room}\n\n::: finflow.{room}\n" for room in rooms()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links from docs/ to a file of the top level to its page."""
    for name, page in TOP_LEVEL.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    return markdown


def rooms() -> list[str]:
    """Rooms of finflow/ from top to bottom, in the order of import-linter's layers."""
    (contract,) = loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return [room for layer in contract["layers"] for room in layer.split(" | ")]


def seen_from_docs(text: str) -> str:
    """A page of the top level with its links seen from docs/; a link to a file outside becomes its words."""

    def seen(match: re.Match[str]) -> str:
        words, target = match.groups()
        page = TOP_LEVEL.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        return words if page is None else f"[{words}]({page})"

    return _LINK.sub(seen, text)
