"""TensorBoard event files, and the groups of charts that TensorBoard and W&B show, the most important first.

Only this file imports TensorBoard.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.tracking.sink import RunOutcome, Sink, Start

STEPS = ("epoch", "episode")
"""Steps of phase 1 and of phase 2."""
VALIDATION = "validation_"
"""Prefix of the figures of a validation."""
_LIVED = ("return", "sharpe", "cvar", "turnover", "reward", "days", "updates")
"""Figures of an episode itself; the others are means of the updates since the one before."""
_VALIDATION = ("validation_sharpe", "validation_active_information_ratio", "validation_cvar95", "validation_turnover",
               "validation_effective_assets")  # fmt: skip
_GATE = ("validation_gate_entropy", "validation_expert_distance", "validation_gate_regime_information")
SECTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Training health": {
        "epoch": ("v_loss", "q_loss", "policy_loss", "critic_grad_norm", "actor_grad_norm"),
        "episode": (
            "critic_loss", "actor_loss", "q_mean", "alpha", "entropy", "critic_grad_norm", "actor_grad_norm",
        ),
    },
    "Risk and return against 1/N": {
        "epoch": _VALIDATION,
        "episode": (*_VALIDATION, "return", "sharpe", "cvar", "turnover"),
    },
    "Gate and experts": {"epoch": _GATE, "episode": _GATE},
}  # fmt: skip
"""By section and step; figures of validation are net of costs, the information ratio is that of the return over 1/N."""
_TITLES = {
    "validation_active_information_ratio": "validation: information ratio against 1/N",
    "validation_cvar95": "validation: CVaR 95 %, a day",
}


def tag(step: str, figure: str) -> str:
    """`GROUP/FIGURE`, in groups that fit a screen: of validation, of the updates of phase 2, and of the step itself."""
    if figure.startswith(VALIDATION):
        return f"{step}_validation/{figure.removeprefix(VALIDATION)}"
    return f"{step}_updates/{figure}" if step == "episode" and figure not in _LIVED else f"{step}/{figure}"


def title(figure: str) -> str:
    """What a chart of `figure` is called."""
    return _TITLES.get(figure) or figure.replace("validation_", "validation: ").replace("_", " ")


class TensorBoardSink(Sink):
    """Scalars under the tags of `tag`, histograms and alerts beside them: epochs and episodes count apart.

    A layout groups the charts to look at first. At the end the table of hyperparameters has what the sweep varied, of a
    run alone its algorithm and seed, beside the figures of the weights that are kept.

    Parameters
    ----------
    folder : of the event files.
    step : that an earlier process left off at; what it wrote after that is no longer shown.
    """

    def __init__(self, folder: Path, step: int | None = None) -> None:
        # Imported here: it takes a second or two, which runs without it save.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=None if step is None else step + 1)
        self._varied: Mapping[str, str | float] = {}

    def begin(self, start: Start) -> None:
        """Write the layout of charts, and keep what was varied for the end."""
        layout = {
            name: {
                f"{title(figure)}, by {step}": ["Multiline", [f"^{tag(step, figure)}$"]]
                for step, figures in steps.items()
                for figure in figures
            }
            for name, steps in SECTIONS.items()
        }
        self._writer.add_custom_scalars(layout)
        alone = {"algo.name": start.settings["algo"]["name"], "seed": start.settings["seed"]}
        self._varied = {key: _number(value) for key, value in (start.swept or alone).items()}

    def log(self, step_name: str, step: int, row: Mapping[str, float | None]) -> None:
        """Add each defined figure as a scalar."""
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(tag(step_name, name), value, step)

    def histogram(self, step_name: str, step: int, name: str, values: NDArray[np.float64]) -> None:
        """Add the finite values as a histogram."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._writer.add_histogram(f"{step_name}_{name}", finite, step)

    def alert(self, step_name: str, step: int, message: str) -> None:
        """Add the message as text."""
        self._writer.add_text(f"{step_name}/alert", message, step)

    def finish(self, outcome: RunOutcome) -> None:
        """Add the row of hyperparameters: what was varied, and the figures of the kept weights as `result/...`."""
        kept = outcome.summary.get("selected") or outcome.summary.get("metrics") or {}
        figures = {
            f"result/{key}": float(value)
            for key, value in {**kept, "selected_episode": outcome.summary.get("selected_episode")}.items()
            if isinstance(value, int | float) and key.startswith((VALIDATION, "selected"))
        }
        # In a folder of its own it would be another run, without curves.
        self._writer.add_hparams(dict(self._varied), figures, run_name=".")

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()


def _number(text: str | float) -> str | float:
    """A number where it is one, so that the table can be sorted and filtered by it."""
    try:
        return float(text)
    except ValueError:
        return text
