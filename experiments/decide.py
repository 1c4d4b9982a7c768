"""Target weights and trades for the latest date in the data."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("decide")
