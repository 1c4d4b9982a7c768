"""Folder of a stage that judges a run, for Hydra: `conf/evaluate.yaml` and `conf/decide.yaml` name it."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from finflow.config import run_folder
from finflow.errors import FinFlowError


def judged(output_root: str, stage: str, run: str | int | Sequence[Any]) -> str:
    """`outputs/<stage>/<name of the run>/<stamp>-s<seed of the run>`."""
    from finflow.artifacts.runs import judged_folder

    named = [str(one) for one in run] if not isinstance(run, str | int) else str(run)
    try:
        return str(judged_folder(output_root, stage, named))
    except FinFlowError:  # the stage itself says, in its own words, what is wrong with `run`
        return run_folder(output_root, stage, "unknown", 0)


def register() -> None:
    """Let Hydra know of it."""
    OmegaConf.register_new_resolver("finflow_judged", judged, replace=True, use_cache=True)
