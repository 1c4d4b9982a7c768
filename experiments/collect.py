"""Offline data by hand: episodes of the behaviour policies, written to one file."""

from pathlib import Path

import entry
from finflow.schema import Config

EXAMPLES = {
    "episodes=1000 out=dataset.npz": "how many, and the file that pretrain reads by offline.dataset=",
    "seed=1": "another seed",
    "env=csv env.path=prices.csv": "your own daily prices",
    "offline.bootstrap_fraction=0.25": "share of episodes from resampled history",
    "output_root=DIR": "where the run folder goes (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Collect, with the run folder `folder`."""
    from finflow.pipeline import collect

    result = collect(config, folder)
    print(f"Calendar: {result.calendar}")
    print(f"{result.transitions} transitions in {entry.shown(result.dataset)}")
    return result


if __name__ == "__main__":
    entry.main("collect", "Collect offline data with priors, mixtures, noisy and random portfolios.", EXAMPLES, run)
