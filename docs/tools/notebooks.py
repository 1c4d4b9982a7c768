"""Execute the notebooks of docs/examples/ in an empty folder, and keep their outputs: figures as pictures, no progress.

python docs/tools/notebooks.py [NOTEBOOK ...]

Needs nbclient and playwright (`pip install -c constraints.txt -e '.[dev]'`) and Chromium, see `picture.py`.
"""

import base64
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
from nbclient import NotebookClient
from picture import pictures

ROOT = Path(__file__).resolve().parents[2]
FIGURE = "application/vnd.plotly.v1+json"


def executed(path: Path, folder: Path) -> Any:
    """The notebook with the outputs that its cells have in `folder`."""
    os.environ |= {"PYTHONPATH": str(ROOT), "PLOTLY_RENDERER": "plotly_mimetype", "OMP_NUM_THREADS": "1"}
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def with_pictures(notebook: Any, folder: Path) -> Any:
    """The notebook with each figure as a PNG, which every viewer shows, in the place of its data."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", []) if FIGURE in out.get("data", {})]
    wanted: list[tuple[str, str]] = []
    for number, output in enumerate(outputs):
        figure = plotly.io.from_json(json.dumps(output["data"][FIGURE]), skip_invalid=True)
        page = folder / f"figure{number}.html"
        page.write_text(f'<div id="it"><div class="plot">{figure.to_html(full_html=False)}</div></div>')
        wanted.append((str(page), "#it"))
    for output, picture in zip(outputs, pictures(wanted), strict=True):
        output["data"] = {"image/png": base64.b64encode(picture).decode()}
    return notebook


def main(words: Sequence[str]) -> None:
    """Write the notebooks."""
    for path in [Path(word) for word in words] or sorted((ROOT / "docs/examples").glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as place:
            notebook = with_pictures(executed(path, Path(place)), Path(place))
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when each cell ran
            if "outputs" in cell:  # progress differs from machine to machine
                cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, path)
        sys.stdout.write(f"Written: {path}, {path.stat().st_size / 1024:.0f} kB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
