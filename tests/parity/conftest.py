"""Parity with d3rlpy: `make parity` runs these in a venv of their own; elsewhere nothing here is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("d3rlpy") else ["*"]
