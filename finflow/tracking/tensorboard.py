"""TensorBoard event files; the only importer of that library."""

from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray


class TensorBoardTracker:
    """Scalars, histograms and alerts under tags `<step name>/<figure>`, since epochs and episodes count apart.

    Parameters
    ----------
    folder : of the event files.
    """

    def __init__(self, folder: Path) -> None:
        # Importing it takes a second or two, which a run without it need not pay.
        from torch.utils.tensorboard import SummaryWriter

        self._writer: SummaryWriter | None = SummaryWriter(str(folder))

    def log(self, step_name: str, step: int, row: Mapping[str, SupportsFloat | None]) -> None:
        """Add each defined figure as a scalar."""
        if self._writer is not None:
            for name, value in row.items():
                if value is not None:
                    self._writer.add_scalar(f"{step_name}/{name}", float(value), step)

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Add the finite values as a histogram."""
        finite = values[np.isfinite(values)]
        if self._writer is not None and finite.size:
            self._writer.add_histogram(f"{step_name}/{name}", finite, step)

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Add the message as text."""
        if self._writer is not None:
            self._writer.add_text(f"{step_name}/alert", message, step)

    def close(self) -> None:
        """Write what is left."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
