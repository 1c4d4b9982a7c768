"""A strategy from outside on the test window: weights or returns of a file, judged as FinFlow's own policies are."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("judge")
