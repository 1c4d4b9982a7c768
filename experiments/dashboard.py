"""The W&B workspace of a project as code: written as JSON, and saved where tracking is online."""

from pathlib import Path

import entry
from finflow.schema import Config

EXAMPLES = {
    "tracking.wandb.mode=online": "save it on the server; needs a key: wandb login, or WANDB_API_KEY",
    "tracking.wandb.project=desk": "for the runs of that project (default finflow)",
    "tracking.wandb.entity=team": "of that account or team (default: the account's own)",
    "output_root=DIR": "where the JSON is written (default outputs)",
}


def run(config: Config, folder: Path) -> entry.Result:
    """Write the workspace, and save it if asked for."""
    from finflow.stages.dashboard import dashboard

    result = dashboard(config, folder)
    print(f"Workspace: {entry.shown(result.file)}")
    if result.url is not None:
        print(f"Saved: {result.url}")
    return result


if __name__ == "__main__":
    entry.main(
        "dashboard", "Build the W&B workspace; written as JSON, and saved where tracking is online.", EXAMPLES, run
    )
