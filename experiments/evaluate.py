"""The test window: baselines, costs, statistics, verdict and report."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("evaluate")
