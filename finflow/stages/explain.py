"""Decision cards of a run, from the files of its evaluation; the test window is not opened again."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.artifacts.commands import command_for
from finflow.artifacts.provenance import Stopwatch, run_record, write_config, write_run, write_summary
from finflow.config import run_folder
from finflow.data.calendar import CALENDAR
from finflow.data.market import Window
from finflow.errors import ConfigError
from finflow.explanations.card import Card, Explainer
from finflow.io.files import atomic_json
from finflow.report.card import write_card, write_index
from finflow.schema import Config
from finflow.stages.explaining import card_paths, explainer_of, gauges_of, window_track
from finflow.stages.loaded_run import Trained, judging, load_trained, require_same_past, single_run
from finflow.stages.results import ExplainResult

WINDOWS = ("train", "validation", "test")


def explain(config: Config, run_dir: Path | None = None) -> ExplainResult:
    """Make a card, as a page and as JSON, for each decision that `date` and `top` choose.

    `date` is a day or `[first, last]`, null the test window; `top` keeps the largest trades among them, the first
    purchase of the window apart. Neither: the largest trade of the test window.

    Raises
    ------
    ConfigError
        If there is no such finished run or decision, or the day lies in a test window that no evaluation has opened.
    DataError, StorageError
        If the data changed since training, or a file is damaged.
    """
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        trained = load_trained(config, single_run(config))
        require_same_past(trained)
        name, first, last = asked_window(config, trained)
        track = window_track(trained, name)
        if track is None:
            raise ConfigError(
                f"run={trained.folder}: the test window, from {trained.prepared.dates['test'][0]} on, has not been"
                f" opened for this run; run: {command_for('evaluate', trained.config, {'run': trained.folder})}"
            )
        explainer = explainer_of(trained, name, track, gauges_of(trained))
        places = chosen_places(config, explainer, first, last)
    own = judging(config, trained)
    folder = run_dir or Path(run_folder(own.output_root, own.stage, own.name, own.seed))
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, own)
    cards: list[Card] = []
    pages: list[Path] = []
    with stopwatch.phase("explain"):
        for place in places:
            card = explainer.card(place)
            page, data = card_paths(folder, card.date)
            write_card(page, card)
            atomic_json(data, card.to_dict())
            cards.append(card)
            pages.append(page)
    index = write_index(folder / "index.html", cards, [page.name for page in pages]) if len(cards) > 1 else None
    calendar = trained.prepared.market.calendar.facts()
    facts = {
        CALENDAR: calendar,
        "run": str(trained.folder),
        "settings": {"run": config.run, "date": config.date, "top": config.top},
    }
    record = run_record(
        own, trained.prepared.market.fingerprint, trained.prepared.dates, own.seed, trained.record.get("parent"),
        stopwatch, finished=True, facts=facts,
    )  # fmt: skip
    write_run(folder, record)
    shown = [{"date": c.date, "turnover": c.turnover, "focus": c.focus, "leader": c.leader} for c in cards]
    write_summary(folder, {"stage": "explain", "window": name, "cards": shown})
    following = command_for("decide", trained.config, {"run": trained.folder})
    return ExplainResult(folder, tuple(cards), tuple(pages), index, trained.folder, following)


def asked_window(config: Config, trained: Trained) -> tuple[str, int, int]:
    """Window of the given days, and their first and last row.

    Raises
    ------
    ConfigError
        If a day is no trading day, lies between the windows, or the days lie in several.
    """
    fold, dates = trained.prepared.fold, trained.prepared.market.dates
    if config.date is None:
        rows = fold.test.decisions
        return "test", rows[0], rows[-1]
    if isinstance(config.date, str):
        first = last = _row(config.date, dates)
    else:
        days = [np.datetime64(day, "D") for day in config.date]
        first, last = int(np.searchsorted(dates, days[0])), int(np.searchsorted(dates, days[1], side="right")) - 1
        if first > last:
            raise ConfigError(f"date=[{','.join(config.date)}]: no trading day in it; write [first,last]")
    for name in WINDOWS:
        window: Window = getattr(fold, name)
        if first in window.decisions and last in window.decisions:
            return name, first, last
    spans = (f"{name} {dates[w.start - 1]} to {dates[w.stop - 2]}" for name in WINDOWS for w in [getattr(fold, name)])
    shown = config.date if isinstance(config.date, str) else f"[{','.join(config.date)}]"
    raise ConfigError(f"date={shown}: not inside one window's decisions; those of this run are {', '.join(spans)}")


def _row(day: str, dates: NDArray[np.datetime64]) -> int:
    row = int(np.searchsorted(dates, np.datetime64(day, "D")))
    if row < len(dates) and dates[row] == np.datetime64(day, "D"):
        return row
    near = " or ".join(str(dates[r]) for r in (row - 1, row) if 0 <= r < len(dates))
    raise ConfigError(f"date={day}: no trading day of the prices; the nearest is {near}")


def chosen_places(config: Config, explainer: Explainer, first: int, last: int) -> list[int]:
    """Places in the scene of the decisions to explain.

    Raises
    ------
    ConfigError
        If the portfolio could not be changed on any of these days.
    """
    scene = explainer.scene
    start = int(scene.rows[0])
    inside = range(first - start, last - start + 1)
    if config.date is None or config.top is not None:
        found = explainer.largest(config.top or 1, inside)
    else:
        found = [place for place in inside if scene.decided[place]]
    if not found:
        dates = scene.subject.market.dates[scene.rows]
        decided = np.flatnonzero(scene.decided)
        near = decided[np.argsort(np.abs(decided - inside.start), kind="stable")[:2]]
        named = " and ".join(str(dates[place]) for place in sorted(near.tolist()))
        raise ConfigError(f"date={config.date}: no decision is taken there; the nearest are those of {named}")
    return found
