"""Configures the W&B client: silent, without prompts, and offline unless the settings say online.

The client works through a process of its own, `wandb-core`, and waits for it without limit when Python exits. To give
up a run, that process must be ended; there is no public function for it.
"""

import contextlib
import netrc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

INIT_SECONDS = 30.0
"""Longest that a server may take to answer the first request."""


def load() -> Any:
    """The module `wandb`, imported with its telemetry off."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))  # otherwise it prints the source of its key
    return wandb


def settings(wandb: Any, mode: str) -> Any:
    """Settings of a run; the client does not collect what FinFlow records itself."""
    return wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=INIT_SECONDS,
    )


def has_key(wandb: Any) -> bool:
    """Whether the client has a key; without one it would prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(str(wandb.setup().settings.base_url)).hostname
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return host is not None and netrc.netrc(path).authenticators(host) is not None
    return False


def end_service() -> None:
    """End `wandb-core` and forget it: nothing waits for it when Python exits, and another run begins with a new one."""
    from wandb.sdk import wandb_setup

    threading.excepthook = _without_its_own(threading.excepthook)
    with contextlib.suppress(AttributeError, OSError):  # another version of the client may hold it elsewhere
        setup: Any = wandb_setup.singleton()
        connection, setup._connection = setup._connection, None
        connection._cleanup()
        connection._proc._process.kill()
        os.environ.pop("WANDB_SERVICE", None)  # where it listened


def _without_its_own(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """`hook` without the errors that the client's threads raise when their process is gone."""

    def call(told: Any) -> None:
        if told.thread is None or not told.thread.name.startswith("wandb"):
            hook(told)

    return call
