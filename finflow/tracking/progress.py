"""Progress of a loop on stderr: a bar in a terminal, else a line for each tenth."""

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from typing import Protocol, SupportsFloat

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Call with the number of steps done since the last call, and the figures to show."""

    def __call__(self, steps: int = 1, /, **figures: SupportsFloat | None) -> None:
        """Move on by `steps`."""
        ...


@contextlib.contextmanager
def progress(total: int, label: str, done: int = 0) -> Generator[Advance]:
    """Show the progress of `total` steps: count, speed, time left, and current figures.

    stdout is left alone, so that its last lines are what scripts read.

    Parameters
    ----------
    total : number of steps.
    label : what the steps are, for example "fine-tuning (episodes)".
    done : steps of an earlier process, which count neither for the speed nor for the time that is left.
    """
    console = Console(stderr=True, force_jupyter=False)  # in a notebook each line would be an output of its own
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(total, label, done, console) as advance:
            yield advance
    else:
        show = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
        yield _lines(total, label, done, show)


@contextlib.contextmanager
def _bar(total: int, label: str, done: int, console: Console) -> Generator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    # rich would send what others print on stdout through this console, that is to stderr.
    with Progress(*columns, console=console, refresh_per_second=4, redirect_stdout=False) as display:
        task = display.add_task(label, total=total, completed=done, figures="")

        def advance(steps: int = 1, /, **figures: SupportsFloat | None) -> None:
            if figures:
                display.update(task, advance=steps, figures=_shown(figures))
            else:
                display.update(task, advance=steps)

        yield advance


def _lines(total: int, label: str, done: int, emit: Callable[[str], None]) -> Advance:
    begin, start, tenths = time.monotonic(), done, 10 * done // max(total, 1)

    def advance(steps: int = 1, /, **figures: SupportsFloat | None) -> None:
        nonlocal done, tenths
        done += steps
        reached = 10 * done // max(total, 1)
        if reached <= tenths:
            return
        tenths = reached
        rate = (done - start) / max(time.monotonic() - begin, 1e-9)
        left = timedelta(seconds=round(max(total - done, 0) / rate))
        parts = [f"{label}: {done}/{total}", _rate(rate), f"{left} left", _shown(figures)]
        emit("  ".join(part for part in parts if part))

    return advance


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed))


def _rate(speed: float) -> str:
    return f"{speed:.3g} it/s" if speed < 1000 else f"{speed:.0f} it/s"


def _shown(figures: Mapping[str, SupportsFloat | None]) -> str:
    return "  ".join(f"{name} {'-' if value is None else f'{float(value):.4g}'}" for name, value in figures.items())
