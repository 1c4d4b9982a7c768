"""TensorBoard event files; the only importer of that library."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.io.flatten import flatten
from finflow.tracking.charts import SECTIONS, title
from finflow.tracking.sink import Outcome, Sink, Start


class TensorBoardSink(Sink):
    """Scalars, histograms and alerts under tags `<step name>/<figure>`, since epochs and episodes count apart.

    A layout groups the charts to look at first. At the end the settings stand in the table of hyperparameters, beside
    the figures of the summary.

    Parameters
    ----------
    folder : of the event files.
    step : that an earlier process left off at; what it wrote after that is no longer shown.
    """

    def __init__(self, folder: Path, step: int | None = None) -> None:
        # Imported here: it takes a second or two, which runs without it save.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=None if step is None else step + 1)
        self._settings: Mapping[str, bool | str | float] = {}

    def begin(self, start: Start) -> None:
        """Write the layout of charts, and keep the settings for the end."""
        layout = {
            name: {
                f"{title(figure)}, by {step}": ["Multiline", [f"^{step}/{figure}$"]]
                for step, figures in steps.items()
                for figure in figures
            }
            for name, steps in SECTIONS.items()
        }
        self._writer.add_custom_scalars(layout)
        self._settings = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in flatten(start.settings).items()
        }

    def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
        """Add each defined figure as a scalar."""
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(f"{step_name}/{name}", value, step)

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Add the finite values as a histogram."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._writer.add_histogram(f"{step_name}/{name}", finite, step)

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Add the message as text."""
        self._writer.add_text(f"{step_name}/alert", message, step)

    def finish(self, outcome: Outcome) -> None:
        """Add the row of hyperparameters: settings, and every number of the summary as `result/...`."""
        figures = {
            f"result/{key}": float(value)
            for key, value in flatten(outcome.summary).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        # In a folder of its own it would be another run, without curves.
        self._writer.add_hparams(dict(self._settings), figures, run_name=".")

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()
