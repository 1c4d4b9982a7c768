"""A dry look at the data: what a run on these settings would see; nothing is trained, nothing is written."""

import sys
from collections.abc import Sequence

import entry
from finflow.config import compose_stage, parse
from finflow.errors import ConfigError
from finflow.tracking.background_sink import leave

ABOUT = "Look at the data: names, calendar, windows of the fold, masks, warnings. Trains nothing, writes nothing."
EXAMPLES = {
    "env=csv env.path=prices.csv": "your own prices: a file or a folder, see docs/data.md",
    "env=csv env.path=p.csv env.rebalance=weekly": "whether the newest row is a decision day",
    "fold=2008": "another test window of the embedded prices",
}


def launch(argv: Sequence[str]) -> int:
    """Print what is seen."""
    several, overrides = entry.read_line(argv)
    if several:
        raise ConfigError("-m: a look takes one market; leave it out")
    from finflow.stages.look import look
    from finflow.tracking.console import warn

    result = look(parse(compose_stage("look", overrides)))
    for line in result.warnings:
        warn(line)
    print("\n".join(result.lines))
    return 0


if __name__ == "__main__":
    if any(arg in ("-h", "--help") for arg in sys.argv[1:]):
        print(entry.usage("look", ABOUT, EXAMPLES))
        sys.exit(0)
    leave(entry.guarded(lambda: launch(sys.argv[1:])))
