"""Decision cards of a run, from the files of its evaluation; the test window is not opened again."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finflow.artifacts.provenance import Stopwatch, finish_run, made_folder
from finflow.artifacts.runs import check_arguments, command_for
from finflow.data.market import Window
from finflow.errors import ConfigError
from finflow.evaluation.decision_log import by_name, latest_by_date
from finflow.explanations.card import Card, Explainer
from finflow.explanations.decision_trace import REPRODUCED
from finflow.report.card import write_index
from finflow.schema import Config
from finflow.stages.explaining import explainer_of, gauges_of, store_card, window_track
from finflow.stages.live import LIVE, decision_for, followed, live_explainer, log_of, model_portfolio
from finflow.stages.loaded_run import named_after, record_of, require_same_past
from finflow.stages.results import ExplainResult
from finflow.stages.run_groups import Group, load_groups, named
from finflow.tracking.sink import warn

WINDOWS = ("train", "validation", "test")


def explain(config: Config, run_dir: Path | None = None) -> ExplainResult:
    """Make a card, as a page and as JSON, for each decision that `date` and `top` choose.

    `date` is a day or `[first, last]`, null the test window; `top` keeps the largest trades among them, the first
    purchase of the window apart. Neither: the largest trade of the test window. Days after the test window, up to the
    newest close, are explained as `decide` decided them. With `ticker` the cards say why that name's holding is what
    it is; without `date` then that of the newest close.

    Raises
    ------
    ConfigError
        If there is no such finished run or decision, or the day lies in a test window that no evaluation has opened.
    DataError, StorageError
        If the data changed since training, or a file is damaged.
    """
    run_dir = check_arguments(config, "explain", run_dir)
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        groups = load_groups(config)
        for run in (run for group in groups for run in group.runs):
            require_same_past(run)
        assets = groups[0].prepared.market.assets[:-1]
        if config.ticker is not None and config.ticker not in assets:
            raise ConfigError(f"ticker={config.ticker}: no name of the run; known here: {', '.join(assets)}")
        chosen = chosen_decisions(config, groups)
    trained = groups[0].first
    own = named_after(config, trained)
    folder = made_folder(own, run_dir)
    cards: list[Card] = []
    pages: list[Path] = []
    with stopwatch.phase("explain"):
        for explainer, place in chosen:
            cards.append(explainer.card(place, config.ticker))
            pages.append(store_card(folder, cards[-1]))
    index = write_index(folder / "index.html", cards, [page.name for page in pages]) if len(cards) > 1 else None
    facts = {
        "run": [str(run.folder) for group in groups for run in group.runs],
        "settings": {name: getattr(config, name) for name in ("run", "date", "top", "ticker")},
    }
    shown = [{"date": c.date, "turnover": c.turnover, "focus": c.focus, "leader": c.leader} for c in cards]
    summary = {"window": cards[0].window, "cards": shown}
    finish_run(folder, own, record_of(own, trained, stopwatch, facts), stopwatch, summary)
    folders = tuple(run.folder for group in groups for run in group.runs)
    following = command_for("decide", trained.config, {"run": named(folders)})
    return ExplainResult(folder, tuple(cards), tuple(pages), index, folders, following)


def chosen_decisions(config: Config, groups: Sequence[Group]) -> list[tuple[Explainer, int]]:
    """Explainers, and the places in their scenes of the decisions to explain, by date; of `top` by size."""
    if config.date is not None or (config.ticker is not None and config.top is None):
        newest = str(groups[-1].prepared.market.dates[-1])
        group, name, first, last = asked_window(config.date or newest, groups)
        if name == LIVE:
            return _live_decisions(config, group, first, last)
        explainer = _explainer(groups, group, name)
        return [(explainer, place) for place in chosen_places(config, explainer, first, last)]
    found: list[tuple[Explainer, int]] = []
    for group in groups:
        explainer = _explainer(groups, group, "test")
        rows = group.prepared.fold.test.decisions
        found += [(explainer, place) for place in chosen_places(config, explainer, rows[0], rows[-1])]
    found.sort(key=lambda one: -one[0].scene.track.turnover[one[1]])
    return found[: config.top or 1]


def _live_decisions(config: Config, group: Group, first: int, last: int) -> list[tuple[Explainer, int]]:
    """Decisions after the test window: as `decide` logged them, else those of the model portfolio."""
    model = followed(group)
    whole = live_explainer(group, model, model_portfolio(model))
    logged = latest_by_date(log_of(group).entries())
    market = group.prepared.market
    found: list[tuple[Explainer, int]] = []
    for place in chosen_places(config, whole, first, last):
        row = int(model.rows[place])
        entry = logged.get(str(market.dates[row]))
        held = None if entry is None else by_name(entry["held"], market.assets)
        if entry is None or held is None:
            found.append((whole, place))
            continue
        trace = decision_for(group, model, row, held, entry["drawdown"]) if entry["owned"] else model
        here = 0 if entry["owned"] else place
        apart = np.abs(trace.track.weights[here] - by_name(entry["target"], market.assets)).max()
        if apart > REPRODUCED:
            warn(f"date={market.dates[row]}: comes out {apart:.1e} from what decide logged: the data changed since")
        words = f"decision {entry['number']} of {log_of(group).path.name}"
        explainer = live_explainer(group, trace, f"what was held at {words}") if entry["owned"] else whole
        found.append((explainer, here))
    return found


def _explainer(groups: Sequence[Group], group: Group, name: str) -> Explainer:
    track = window_track(group, name)
    if track is None:
        folders = [run.folder for each in groups for run in each.runs]
        command = command_for("evaluate", group.first.config, {"run": named(folders)})
        raise ConfigError(
            f"run={group.first.folder}: the test window, from {group.prepared.dates['test'][0]} on, has not been"
            f" opened for {'this run' if len(folders) == 1 else 'these runs'}; run: {command}"
        )
    return explainer_of(group, name, track, gauges_of(group.first))


def asked_window(asked: str | Sequence[str], groups: Sequence[Group]) -> tuple[Group, str, int, int]:
    """Policy and window of the days asked for, and their first and last row.

    Of several folds it is the one whose test window holds the days, else the last that knows them.
    """
    dates = groups[0].prepared.market.dates
    begin, end = (asked, asked) if isinstance(asked, str) else asked
    shown = asked if isinstance(asked, str) else f"[{begin},{end}]"
    first = int(np.searchsorted(dates, np.datetime64(begin, "D")))
    last = int(np.searchsorted(dates, np.datetime64(end, "D"), side="right")) - 1
    if first > last:
        raise ConfigError(f"date={shown}: no trading day of the prices; name another, or [first,last]")
    for name in reversed(WINDOWS):
        for group in reversed(groups):
            window: Window = getattr(group.prepared.fold, name)
            if first in window.decisions and last in window.decisions:
                return group, name, first, last
    fold = groups[-1].prepared.fold
    if first >= fold.test.stop - 1:
        return groups[-1], LIVE, first, last
    spans = [f"{name} {dates[w.start - 1]} to {dates[w.stop - 2]}" for name in WINDOWS for w in [getattr(fold, name)]]
    spans.append(f"{LIVE} {dates[fold.test.stop - 1]} to {dates[-1]}")
    raise ConfigError(f"date={shown}: not inside one window's decisions; those of this run are {', '.join(spans)}")


def chosen_places(config: Config, explainer: Explainer, first: int, last: int) -> list[int]:
    """Places in the scene of the decisions to explain."""
    scene = explainer.scene
    start = int(scene.rows[0])
    inside = range(first - start, last - start + 1)
    if config.date is None or config.top is not None:
        found = explainer.largest(config.top or 1, inside)
    else:
        found = [place for place in inside if scene.decided[place]]
    if not found:
        raise ConfigError(f"date={config.date}: no decision is taken there; name another day, or [first,last]")
    return found
