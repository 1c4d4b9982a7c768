"""Run folders that depend on what is on disk, as resolvers for `conf/`: of a judged run, and of a sweep."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from finflow.config.compose import run_folder
from finflow.errors import FinFlowError


def judged(output_root: str, stage: str, run: str | int | Sequence[Any]) -> str:
    """`outputs/<stage>/<name of the run>/<stamp>-s<seed of the run>`."""
    from finflow.artifacts.runs import judged_folder

    named = [str(one) for one in run] if not isinstance(run, str | int) else str(run)
    try:
        return str(judged_folder(output_root, stage, named))
    except FinFlowError:  # the stage itself says, in its own words, what is wrong with `run`
        return run_folder(output_root, stage, "unknown", 0)


def swept(output_root: str, named: str | int) -> str:
    """The folder that `dir` names."""
    from finflow.stages.sweep import sweep_folder

    try:
        return str(sweep_folder(output_root, str(named)))
    except FinFlowError:  # the stage itself says, in its own words, what is wrong with `dir`
        return run_folder(output_root, "sweep", "unknown", 0)


OmegaConf.register_new_resolver("finflow_judged", judged, replace=True, use_cache=True)
OmegaConf.register_new_resolver("finflow_swept", swept, replace=True, use_cache=True)
