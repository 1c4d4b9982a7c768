"""FinFlow: portfolio reinforcement learning whose numbers can be believed.

`finflow.load(stage, overrides)` gives a configuration; `pretrain`, `finetune`, `evaluate`, `audit`, `collect`,
`decide`, `explain`, `look`, `make_env` and `make_vector_env` take one each; `judge` a strategy beside it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Before torch is imported: spinning OpenMP threads make an update many times slower beside any other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from finflow.config import load
    from finflow.pipeline import (
        audit,
        collect,
        decide,
        evaluate,
        explain,
        finetune,
        judge,
        look,
        make_env,
        make_vector_env,
        pretrain,
    )  # fmt: skip

__all__ = [
    "audit",
    "collect",
    "decide",
    "evaluate",
    "explain",
    "finetune",
    "judge",
    "load",
    "look",
    "make_env",
    "make_vector_env",
    "pretrain",
]


def __dir__() -> list[str]:
    """The public API alone."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import the API at its first use, since `--help` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("finflow.config" if name == "load" else "finflow.pipeline"), name)
