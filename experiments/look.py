"""A dry look at the data: what a run on these settings would see; nothing is trained, nothing is written."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("look")
