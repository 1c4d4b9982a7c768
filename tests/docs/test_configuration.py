"""docs/configuration.md is what the schemas and conf/ say, in words that hold."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
from pydantic import Field, create_model

from finflow.config.compose import CONF_DIR, compose_stage, plain
from finflow.io.files import flatten
from finflow.schema import STAGES
from finflow.schema.fields import Count, Day, Fraction, Schedule, Schema, Text

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text()


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "docs/tools/configuration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale(made: ModuleType) -> None:
    assert made.page() == PAGE, "docs/configuration.md is stale: run `make configuration`"


def test_every_key_of_every_stage_is_listed_with_the_value_that_it_has() -> None:
    listed = dict(re.findall(r"^\| `([\w.]+)` \| ([^\n]+) \|$", PAGE, flags=re.MULTILINE))
    for stage in STAGES:
        for key, value in flatten(plain(compose_stage(stage))).items():
            if key in ("stage", "env.synthetic", "tracking.wandb"):
                continue
            default = re.search(r"\| `([^`]*)` \|", f"| {listed[key]}")
            if key.startswith("algo.") or default is None or "{" in default[1]:
                continue
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert default[1] == shown or float(default[1]) == value, key


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Count | None, "whole number ≥ 1 or null"),
        (Annotated[float, Field(gt=0, le=1)], "number > 0, ≤ 1"),
        (Fraction, "number ≥ 0, ≤ 1"),
        (Annotated[int, Field(ge=0, lt=2**63)], "whole number ≥ 0, < 2^63"),
        (Schedule, "two numbers ≥ 0"),
        (Literal["warn", "off"], "`warn`, `off`"),
        (Day | Annotated[list[Day], Field(min_length=2, max_length=2)] | None,
         "day YYYY-MM-DD or two days YYYY-MM-DD or null"),
        (Text | Annotated[list[Text], Field(min_length=1)], "text or list of texts"),
    ],
)  # fmt: skip
def test_types_and_bounds_in_words(made: ModuleType, annotation: object, words: str) -> None:
    model = create_model("Model", __base__=Schema, field=(annotation, ...))  # type: ignore[call-overload]
    assert made.takes(model.model_fields["field"]) == words


def test_a_key_without_a_docstring_is_refused(made: ModuleType) -> None:
    class Section(Schema):
        """A section."""

        key: int

    with pytest.raises(SystemExit, match=r"Section\.key has no docstring"):
        made.keys_table("section.", Section, {}, {})


def test_every_option_says_what_it_is(made: ModuleType) -> None:
    files = [path for path in CONF_DIR.glob("*/*.yaml") if path.parent.name != "shared"]
    assert [str(path) for path in files if not made.comment(path)] == [], "begin the file with a comment"
