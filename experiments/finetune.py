"""Phase 2: online fine-tuning of the B-Cell, from the weights of phase 1."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("finetune")
