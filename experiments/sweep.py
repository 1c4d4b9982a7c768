"""The table of a sweep: leaderboard, the best setting, how much of it is luck, and what each parameter does."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("sweep")
