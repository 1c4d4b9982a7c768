"""Text of `--help`."""

from finflow.cli.commands import COMMANDS
from finflow.config import compose_stage
from finflow.config_errors import group_choices


def usage(stage: str) -> str:
    """What a stage does, its groups with their options, and keys worth knowing."""
    command = COMMANDS[stage]
    chosen = compose_stage(stage, with_hydra=True).hydra.runtime.choices
    lines = [f"python experiments/{stage}.py [key=value ...] [-m]", "", command.about, "", "Groups (* is the default):"]
    for group, options in group_choices(stage).items():
        marked = ", ".join(f"{option}*" if option == chosen.get(group) else option for option in options)
        lines.append(f"  {group:<15} {marked}")
    lines += ["", "Keys used most:", *(f"  {key:<40} {reason}" for key, reason in command.examples.items())]
    lines += ["", "-m runs every combination of values written as seed=0,1,2; quote 'seed=range(5)' for the shell."]
    return "\n".join([*lines, "All keys and their values: conf/base.yaml and the folders beside it."])
