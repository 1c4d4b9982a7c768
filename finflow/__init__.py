"""FinFlow: portfolio reinforcement learning whose numbers can be believed.

`finflow.load(stage, overrides)` gives a configuration; `pretrain`, `finetune`, `evaluate`, `audit`, `collect`,
`decide`, `explain`, `export`, `look`, `make_env` and `make_vector_env` take one each; `judge` a strategy beside it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Before torch is imported: spinning OpenMP threads make an update many times slower beside any other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from finflow.config.compose import load
    from finflow.stages.audit import audit
    from finflow.stages.collect import collect
    from finflow.stages.decide import decide
    from finflow.stages.environment import make_env, make_vector_env
    from finflow.stages.evaluate import evaluate
    from finflow.stages.explain import explain
    from finflow.stages.export import export
    from finflow.stages.finetune import finetune
    from finflow.stages.judge import judge
    from finflow.stages.look import look
    from finflow.stages.pretrain import pretrain

__all__ = [
    "audit",
    "collect",
    "decide",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "judge",
    "load",
    "look",
    "make_env",
    "make_vector_env",
    "pretrain",
]

_MODULES = {
    "load": "finflow.config.compose",
    "make_env": "finflow.stages.environment", "make_vector_env": "finflow.stages.environment",
}  # fmt: skip
"""Where a name of the API stands that is no stage's."""


def __dir__() -> list[str]:
    """The public API alone."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import the API at its first use, since `--help` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, f"finflow.stages.{name}")), name)
