"""The W&B workspace of a project as code: written as JSON, and saved where tracking is online."""

from finflow.cli.main import main

if __name__ == "__main__":
    main("dashboard")
