"""Text of `--help`."""

from collections.abc import Sequence

from finflow.artifacts.commands import command_line
from finflow.cli.commands import COMMANDS
from finflow.config.compose import compose_stage
from finflow.config.overrides import conf_dirs, group_choices


def overview() -> str:
    """All commands, a line each."""
    lines = [
        "finflow COMMAND [key=value ...] [-m]",
        "",
        *(f"  {name:<10} {one.about}" for name, one in COMMANDS.items()),
    ]
    return "\n".join([*lines, "", "finflow COMMAND --help shows the groups and keys of one."])


def usage(stage: str, overrides: Sequence[str] = ()) -> str:
    """What a stage does, its groups with their options, and keys worth knowing; of `overrides` the added folders."""
    command = COMMANDS[stage]
    added = [text for text in overrides if text.startswith("hydra.searchpath=")]
    chosen = compose_stage(stage, added, with_hydra=True).hydra.runtime.choices
    lines = [f"{command_line(stage, [])} [key=value ...] [-m]", "", command.about, "", "Groups (* is the default):"]
    for group, options in group_choices(stage, conf_dirs(added)).items():
        marked = ", ".join(f"{option}*" if option == chosen.get(group) else option for option in options)
        lines.append(f"  {group:<15} {marked}")
    lines += ["", "Keys used most:", *(f"  {key:<40} {reason}" for key, reason in command.examples.items())]
    lines += ["", "-m runs every combination of values written as seed=0,1,2; quote 'seed=range(5)' for the shell."]
    lines += ["Hydra's flags work too: --cfg job, --info, --config-dir DIR, --hydra-help for all of them."]
    return "\n".join([*lines, "All keys and their values: conf/base.yaml and the folders beside it."])
