"""The notebooks of docs/examples run as they stand, and are kept with their outputs: pictures, tables, no paths."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from .pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs/examples").glob("*.ipynb"))
MOST = 300_000
"""Bytes of a notebook."""


def outputs(notebook: Any) -> list[list[str]]:
    """Kinds of the outputs of each cell with code; a figure is its data or its picture, and progress is left out."""
    kinds = {"application/vnd.plotly.v1+json": "figure", "image/png": "figure"}
    return [
        [
            next((kinds[kind] for kind in out.get("data", {}) if kind in kinds), out.output_type)
            for out in cell.outputs
            if out.get("name") != "stderr"
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_study", "judge_an_agent"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_kept(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    kept, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    for cell in notebook.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    assert outputs(notebook) == outputs(kept), "python docs/tools/notebooks.py"
    assert list(tmp_path.glob("outputs/*/*/*/report.html")), "the report that it speaks of"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_of_no_machine(path: Path) -> None:
    text, kept = path.read_text(), outputs(nbformat.read(path, as_version=4))
    assert any("figure" in cell for cell in kept)
    assert len(text) < MOST
    assert [place for place in ("/root", "/home", "/work", "/tmp", os.sep + "Users") if f"{place}/" in text] == []
