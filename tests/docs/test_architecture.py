"""docs/architecture.md agrees with the tree: its rooms, their order and purpose, and the files that it names."""

import ast
import re
import tomllib

from .pages import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()


def layers() -> list[str]:
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return contract["layers"]


def rooms() -> list[str]:
    return [room for layer in layers() for room in layer.split(" | ")]


def purpose(room: str) -> str:
    """First line of a room's docstring."""
    package = ROOT / "finflow" / room / "__init__.py"
    source = package if package.exists() else package.parent.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text())) or "").partition("\n")[0]


def test_every_room_is_named_in_the_order_of_the_layers_with_its_purpose() -> None:
    expected = [f"| `{room}` | {purpose(room)} |" for room in rooms()]
    table = PAGE.partition("| room | what it is for |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert table.splitlines() == expected, "the rows of docs/architecture.md are:\n" + "\n".join(expected)


def test_rooms_of_one_layer_are_named_together() -> None:
    assert sorted(re.findall(r"`(\w+(?: \| \w+)+)`", PAGE)) == sorted(layer for layer in layers() if " | " in layer)


def test_every_room_says_what_it_is_for() -> None:
    assert [room for room in rooms() if not purpose(room)] == [], "write a docstring"


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(r"`((?:\w+/)*\w+(?:/|\.py|\.toml))`", PAGE)
    assert len(named) > 15
    places = (ROOT, ROOT / "finflow")
    assert [path for path in named if not any((place / path).exists() for place in places)] == []
