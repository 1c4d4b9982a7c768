"""The command line that does a stage with the settings of a run: what messages and last lines tell a user to type."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from finflow.config import load
from finflow.schema import READS, Config

_CARRIED = ("env", "fold", "seed", "output_root", "budget", "algo.network", "offline", "hardware")
"""What one stage hands to the next; the regime and the algorithm are the stage's own."""

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
# Bare, these would be read as a float, null, a bool; a whole number reads back as the text that it was.
_OTHER = re.compile(r"(?![1-9]\d*$)-?[\d_.]+(e-?\d+)?|null|true|false|nan|-?inf", re.IGNORECASE)


def command_for(stage: str, config: Config, *overrides: str) -> str:
    """Shortest command for `stage` whose data, folds, budgets and network are those of `config`.

    Parameters
    ----------
    config : of a run of any stage.
    overrides : what the command shall say besides, for example `run=PATH`, already in Hydra's grammar.

    Returns
    -------
    For example `python experiments/pretrain.py experiment=demo env=csv env.path=prices.csv`.
    """
    wanted = _leaves(config.model_dump())
    env: list[str] = []
    if "env" in READS[stage] and config.env.source != load(stage).env.source:
        env = [f"env={config.env.source}"]
    if "env" in READS[stage] and config.env.path is not None:
        env.append(f"env.path={_hydra(config.env.path)}")
    bases = [[*preset, *env] for preset in ([], ["experiment=demo"])]
    shortest = min(([*base, *_missing(stage, base, wanted)] for base in bases), key=len)
    words = [f"python experiments/{stage}.py", *(shlex.quote(word) for word in [*shortest, *overrides])]
    return " ".join(words)


def _missing(stage: str, base: list[str], wanted: Mapping[str, Any]) -> list[str]:
    """Overrides that take the stage's own values, with `base`, to those wanted, as far as the stage reads them."""
    own = _leaves(load(stage, base).model_dump())
    return [
        f"{key}={_hydra(wanted[key])}"
        for key in own
        if key in wanted and wanted[key] != own[key] and _under(key, _CARRIED) and _under(key, READS[stage])
    ]


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _hydra(value: Any) -> str:
    """A value in the grammar of Hydra's command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_hydra(part) for part in value) + "]"
    if isinstance(value, str):
        # A text that reads as a number, a bool or null must stay a text.
        return (
            value if _PLAIN.fullmatch(value) and not _OTHER.fullmatch(value) else '"' + value.replace('"', '\\"') + '"'
        )
    return str(value)
