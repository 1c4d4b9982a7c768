"""Why a run traded as it did: a decision card for each day asked for."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("explain")
