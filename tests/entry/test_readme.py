"""The tables of the README list what there is."""

import re
from pathlib import Path

from finflow.config.compose import group_choices
from finflow.schema import STAGES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_groups_is_complete() -> None:
    offered = {(g, c) for stage in STAGES for g, choices in group_choices(stage).items() for c in choices}
    listed = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README, flags=re.MULTILINE)
    rows = {group: set(re.findall(r"\w+", re.sub(r"\(\w+\)", "", options))) for group, options in listed}
    assert {(group, choice) for group, choices in rows.items() for choice in choices} == offered


def test_every_make_target_is_told() -> None:
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert set(re.findall(r"`make (\w+)`", README)) == set(phony.split()[1:])
