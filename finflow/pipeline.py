"""The Python API, one function per stage; `experiments/` are thin programs over it."""

from finflow.stages.audit import audit
from finflow.stages.collect import collect
from finflow.stages.decide import decide
from finflow.stages.environment import make_env, make_vector_env
from finflow.stages.evaluate import evaluate
from finflow.stages.explain import explain
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
    "finetune",
    "judge",
    "look",
    "make_env",
    "make_vector_env",
    "pretrain",
]
