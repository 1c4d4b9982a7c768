"""Offline data by hand: episodes of the behaviour policies, written to one file."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("collect")
