"""The page of a sweep: the best setting and its share of luck, all settings, the effect of each parameter."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finflow.evaluation.study import summarise_seeds
from finflow.io.files import atomic_write
from finflow.report.html import render_page
from finflow.report.sweep_figures import effect_charts, importance_chart, pair_charts, parallel_chart
from finflow.report.tables import DASH, Cell, Column, Row, Table, fact_table, middle_cell, number, signed
from finflow.seeding import numpy_stream
from finflow.sweeps.leaderboard import Leaderboard
from finflow.sweeps.table import REPLICATES, Setting, mean_of, scored

CONVINCING = 0.95
SHOWN = 200
"""Settings of the table; sweep.csv holds all of them."""
NAMES = {"validation_sharpe": "Sharpe ratio", "validation_active_information_ratio": "information ratio"}


@dataclass(frozen=True)
class SweepHead:
    """Top of the page: `kind` is the class of its colours, `head` and `tail` the best setting, `meaning` in words."""

    kind: str
    head: str
    tail: str
    meaning: str
    says: tuple[str, ...]
    warnings: tuple[str, ...]
    cards: tuple[tuple[str, str, str], ...]


def write_sweep_page(path: Path, board: Leaderboard, folder: str, rerun: str, next_command: str) -> None:
    """Write the page of a sweep to `path`, whole or not at all.

    Raises StorageError if the file cannot be written.

    Parameters
    ----------
    folder : of the sweep, to be shown.
    rerun : command that runs the best setting again; empty while there is none.
    """
    parallel, importance = (None, None) if board.same else (parallel_chart(board), importance_chart(board))
    effects, pairs = ([], []) if board.same else (effect_charts(board), pair_charts(board))
    charts = [chart for chart in (parallel, importance) if chart is not None]
    page = render_page(
        "sweep.html.j2",
        [*charts, *effects, *pairs],
        board=board,
        title=f"{board.manifest.stage}, sweep {board.manifest.id}",
        objective=NAMES[board.objective],
        head=sweep_head(board),
        parallel=parallel,
        importance=importance,
        effects=effects,
        pairs=pairs,
        settings=settings_table(board),
        ranked=ranked_says(board),
        hidden=max(len(board.settings) - SHOWN, 0),
        unfinished=unfinished_table(board),
        facts=fact_table("facts-table", _facts(board, folder)),
        rerun=rerun,
        next_command=next_command,
    )
    atomic_write(path, page.encode())


def sweep_head(board: Leaderboard) -> SweepHead:
    """Text at the top of the page."""
    best = board.settings[0] if board.settings and board.settings[0].score is not None else None
    name, jobs = NAMES[board.objective], len(board.rows)
    if best is None:
        meaning = f"None of the {jobs} jobs is finished; run the sweep's command again."
        return SweepHead("level", "No job finished", "", meaning, (), (), ())
    chosen = ", ".join(f"{key} = {value}" for key, value in best.values.items()) or "one setting"
    repeated = f", mean of {len(best.rows)} jobs" if len(best.rows) > 1 else ""
    equal = [name_of(one) for one, rank in zip(board.settings[1:], board.ranks[1:], strict=True) if rank == 1]
    repeated += f"; the same policy as {', '.join(equal)}" if equal else ""
    left = Counter(row.state for row in board.rows if row.state != "finished")
    states = ", ".join(f"{count} {state}" for state, count in left.most_common())
    warnings: list[str] = []
    if left:
        warnings.append(f"{left.total()} of {jobs} jobs are not finished ({states}): the ranking is provisional.")
    if not best.complete:
        warnings.append("No setting has all of its seeds and folds: means over different ones do not compare.")
    if board.mixed_code:
        warnings.append(board.mixed_code)
    kind, meaning = _judged(board)
    if board.same:
        return SweepHead("level", "all the same policy", "", same_says(board), (), tuple(warnings), _cards(board))
    head = f"{name[0].upper()}{name[1:]} {number(best.score, 2).text}"
    return SweepHead(kind, head, f"{chosen}{repeated}", meaning, _seeds(best, board), tuple(warnings), _cards(board))


def same_says(board: Leaderboard) -> str:
    """What is said of settings that do not differ."""
    why = f", since all {len(board.rows)} jobs kept the hand-over, the policy of phase 1" if board.handed_over else ""
    return f"Their returns are identical on every validation {board.unit}{why}. There is nothing to rank."


def _judged(board: Leaderboard) -> tuple[str, str]:
    luck, jobs = board.luck, len(board.rows)
    several = len(board.settings) > 1
    if luck is None or not np.isfinite(luck.deflated.deflated):
        reason = "the best setting is not finished" if luck is None else "too few active returns to compare"
        return "level", f"How much of the lead is luck cannot be said: {reason}."
    value = luck.deflated.deflated if several else luck.deflated.probabilistic
    if not several:
        return "level", f"One setting, so nothing was picked: its active Sharpe ratio is above 0 with {value:.2f}."
    where = f"on validation {board.unit}s"
    against = f"the best of {jobs} trials without any skill would show"
    if value >= CONVINCING:
        return "beats", f"Its lead over 1/N {where} is larger than {against} (deflated Sharpe {value:.2f})."
    return "worse" if value < 0.5 else "level", (
        f"Its lead over 1/N {where} is not clearly larger than {against}: deflated Sharpe {value:.2f}, "
        f"where {CONVINCING} would convince. Expect less of it on the test window."
    )


def _seeds(best: Setting, board: Leaderboard) -> tuple[str, ...]:
    folds = {row.values.get("fold") for row in best.rows}
    scores = [score for _, score in scored(best.rows, board.objective)]
    if "seed" not in best.rows[0].values or len(folds) > 1 or len(scores) < 2:
        return ()
    found = summarise_seeds(np.array(scores), samples=2000, rng=numpy_stream(0, "sweep/seeds"))
    caution = " Fewer than ten seeds: underpowered." if found.underpowered else ""
    interval = f"95 % [{found.low:.2f}, {found.high:.2f}]"
    return (f"Interquartile mean over {found.seeds} seeds: {found.middle:.2f}, {interval}.{caution}",)


def _cards(board: Leaderboard) -> tuple[tuple[str, str, str], ...]:
    luck = board.luck
    settings = f"{len(board.settings)} setting{'' if len(board.settings) == 1 else 's'}"
    cards = [("Jobs finished", f"{board.finished} of {len(board.rows)}", settings)]
    if luck is not None and not board.same:
        found = luck.deflated
        cards += [
            ("Active Sharpe ratio", signed(found.sharpe, 2).text, "of the best setting minus 1/N, a year"),
            ("If it were the only trial", number(found.probabilistic, 2).text, "probability that it is above 0"),
            (
                "Deflated Sharpe",
                number(found.deflated, 2).text,
                f"probability that it is above {number(found.hurdle, 2).text}, expected of the best of {found.trials}",
            ),
            (
                "Deflated, effective trials",
                number(found.deflated_effective, 2).text,
                f"the jobs amount to {number(found.effective_trials, 1).text} independent ones, "
                f"hurdle {number(found.hurdle_effective, 2).text}",
            ),
            (
                "Probability of overfitting",
                number(luck.overfitting, 2).text,
                f"that the best of one half of the {board.unit}s is below the median in the other (CSCV); "
                "luck alone gives 0.50",
            ),
        ]
    return tuple(cards)


def settings_table(board: Leaderboard) -> Table:
    """One row per setting, the best first; without ranks where all are the same."""
    keys = [key for key in board.manifest.swept if key not in REPLICATES]
    repeated = any(len(setting.rows) > 1 for setting in board.settings)
    other = "validation_active_information_ratio" if board.objective == "validation_sharpe" else "validation_sharpe"
    shown = (other, "validation_cvar95", "validation_turnover", "selected_episode")
    columns = [Column("Rank"), *(Column(key, numeric=False) for key in keys), Column(NAMES[board.objective].title())]
    compared = any(board.beyond)
    columns += [Column("Difference", f"Sharpe, to {name_of(board.reference)}")] if compared else []
    columns += [Column("Lowest"), Column("Highest"), Column("Jobs", "finished")] if repeated else []
    columns += [Column(NAMES[other].title()), Column("CVaR95", f"% a {board.unit}"), Column("Turnover", "a year")]
    columns += [Column("Kept from", "episode"), Column("Job", numeric=False)]
    rows: list[Row] = []
    for at, setting in enumerate(board.settings[:SHOWN]):
        scores = [score for _, score in scored(setting.rows, board.objective)]
        cells = [number(board.ranks[at], 0), *(Cell(setting.values[key]) for key in keys), number(setting.score, 3)]
        cells += [beyond_cell(board, at)] if compared else []
        if repeated:
            ends = [number(end, 3) for end in ([min(scores), max(scores)] if scores else [None, None])]
            cells += [*ends, Cell(f"{len(scores)} of {len(setting.rows)}", float(len(scores)))]
        means = [mean_of(setting.rows, name) for name in shown]
        cells += [number(means[0], 3), number(means[1], 2, 100), number(means[2], 2), number(means[3], 0)]
        first = setting.rows[0]
        job = f"{len(setting.rows)} jobs" if repeated else first.job
        cells.append(Cell(job, note="" if repeated or first.state == "finished" else first.state))
        marked = at == 0 and setting.score is not None and not board.same
        rows.append(Row(tuple(cells), "policy" if marked else ""))
    return Table("settings-table", tuple(columns), tuple(rows), sortable=True)


def name_of(setting: Setting | None) -> str:
    """A setting as it is called in a sentence."""
    values = setting.values if setting else {}
    return ", ".join(values.values() if "ablation" in values else (f"{k}={v}" for k, v in values.items()))


def beyond_cell(board: Leaderboard, at: int) -> Cell:
    """Sharpe ratio of setting `at` minus the reference's on the same days, with its 95 % interval."""
    found = board.beyond[at]
    if found is None:
        return Cell("reference" if board.settings[at] is board.reference else DASH)
    return middle_cell(found, signed)


def ranked_says(board: Leaderboard) -> tuple[str, ...]:
    """Which settings are one policy, and what the differences are."""
    says = [
        f"{name_of(board.settings[at])} is the same policy as {name_of(board.settings[first])}, with identical returns "
        f"on every validation {board.unit}: the two share a rank."
        for at, first in enumerate(board.same_as)
        if at != first and not board.same
    ]
    if any(board.beyond) and not board.same:
        says.append(
            f"Differences are Sharpe ratios minus those of {name_of(board.reference)}, the first setting, over the "
            f"same validation {board.unit}s, with 95 % intervals, seeds averaged to one strategy."
        )
    return tuple(says)


def unfinished_table(board: Leaderboard) -> Table:
    """Jobs that are not finished, and why."""
    columns = (Column("Job", numeric=False), Column("State", numeric=False), Column("Reason", numeric=False))
    rows: list[Row] = []
    for row in board.rows:
        if row.state != "finished":
            tried = ", ".join(f"{key}={value}" for key, value in row.values.items())
            rows.append(Row((Cell(row.job, note=tried), Cell(row.state), Cell(row.reason or DASH))))
    return Table("unfinished-table", columns, tuple(rows))


def _facts(board: Leaderboard, folder: str) -> dict[str, object]:
    pins = board.manifest.pins.values()
    parents = sorted({pin.parent for pin in pins if pin.parent is not None})
    seconds = [row.seconds for row in board.rows if row.seconds is not None]
    return {
        "sweep folder": folder,
        "command": " ".join(board.manifest.command),
        "data": ", ".join(sorted({pin.data for pin in pins if pin.data is not None})) or None,
        "parents (SHA-256)": ", ".join(parents) or None,
        "hours of all jobs": f"{sum(seconds) / 3600:.2f}" if seconds else None,
    }
