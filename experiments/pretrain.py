"""Phase 1: offline pretraining on the train days of one fold."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("pretrain")
