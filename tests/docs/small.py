"""The commands of a page with a small budget appended."""

import shlex
from collections.abc import Sequence
from itertools import pairwise

from finflow.config.compose import parse_override
from finflow.schema import READS

from .pages import stage_of

SMALL = {
    "env.episode_days": "42",
    "env.num_envs": "4",
    "budget.collect_episodes": "48",
    "budget.epochs": "1",
    "budget.updates_per_epoch": "4",
    "budget.episodes": "4",
    "budget.warmup_episodes": "1",
    "budget.critic_warmup_updates": "2",
    "budget.refit_updates": "2",
    "budget.crossfit_updates": "2",
    "algo.batch_size": "16",
    "algo.network.hidden_dim": "16",
    "algo.network.embed_dim": "8",
    "evaluation.every_episodes": "4",
    "evaluation.bootstrap_samples": "100",
}
"""Added to the commands of a page, where the stage reads the key and it is not typed."""
MOST_EPISODES = "48"
PIPELINE = ("pretrain", "finetune", "evaluate")


def reduced(stage: str, typed: Sequence[str], data: Sequence[str]) -> list[str]:
    """The words of a stage with larger budgets taken out, small ones added, and `data` where they name no other."""
    kept = [word for word in typed if not _large(word)]
    flags = {"-m", "--config-dir", *(after for word, after in pairwise(kept) if word == "--config-dir")}
    keys = {parse_override(word).key_or_group for word in kept if word not in flags}
    idle = ["evaluation"] if "audit=true" in kept else []
    named = keys & {"env", "fold"} or "experiment=folds" in kept or "env" not in READS[stage]
    added = [] if named else list(data)
    return [
        *kept,
        *added,
        *(
            f"{key}={value}"
            for key, value in SMALL.items()
            if key not in keys and _under(key, READS[stage]) and not _under(key, idle)
        ),
    ]


def _large(word: str) -> bool:
    key, _, value = word.partition("=")
    return (key == "episodes" or key in SMALL) and value.isdigit() and int(value) > int(SMALL.get(key, MOST_EPISODES))


def _under(key: str, reads: Sequence[str]) -> bool:
    return any(key == read or key.startswith(read + ".") for read in reads)


def small(words: Sequence[str], data: Sequence[str] = ()) -> list[str]:
    """A command with a small budget: of a stage, or of a target of `make` that runs stages."""
    stage = stage_of(words)
    if stage is not None:
        return [*words[:2], *reduced(stage, words[2:], data)] if "--help" not in words else list(words)
    if list(words[:3]) == ["python", "-m", "finflow"] and len(words) > 3:
        return [*words[:4], *reduced(words[3], words[4:], data)]
    if words[0] != "make":
        return list(words)
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    typed = shlex.split(variables.get("ARGS", ""))
    if {"demo", "train"} & set(words):
        added = [] if any(word.startswith("fold=") for word in typed) else list(data)
        variables["ARGS"] = shlex.join([*typed, *added])
        for each in PIPELINE:
            own = shlex.split(variables.get(f"{each.upper()}_ARGS", ""))
            variables[f"{each.upper()}_ARGS"] = shlex.join(reduced(each, own, ()))
    for target in set(words) & READS.keys():
        variables["ARGS"] = shlex.join(reduced(target, typed, data))
    return [*(word for word in words if "=" not in word), *(f"{name}={text}" for name, text in variables.items())]
