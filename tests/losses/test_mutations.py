"""The table of formulas that are broken on purpose still fits the code; `benchmarks/mutations.py` runs it."""

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = runpy.run_path(str(ROOT / "benchmarks/mutations.py"))["mutations"]()


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.breaks)
def test_every_entry_breaks_what_is_there_and_names_tests_that_exist(mutation: Any) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new
    assert mutation.tests
    for test in mutation.tests:
        path, name = test.split("::")
        before, found, _ = (ROOT / path).read_text().partition(f"def {name}(")
        assert found
        assert "mark.slow" not in before.rpartition("\n\n\n")[2], "it is not run, and breaks nothing"
