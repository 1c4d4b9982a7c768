"""Settings side by side, the table of an ablation: each one's averaged seeds beside the reference, the first."""

from collections.abc import Sequence

from finflow.evaluation.result import Comparison, Evaluation
from finflow.evaluation.study import Member, Middle, Setting, Study
from finflow.report.tables import BY_FIELD, DASH, Cell, Column, Row, Table, interval_cell, number, signed
from finflow.report.verdict import common_reach, tone

FIGURES = ("sharpe", "annual_return", "max_drawdown", "turnover")
"""The others stand in the table of all strategies: so many columns fit on a printed page."""
OUTCOMES = {"beats": "BEATS", "worse": "WORSE THAN", "level": "INDISTINGUISHABLE FROM"}


def settings_says(study: Study) -> tuple[str, ...]:
    """Plain sentences: what is compared with what, which settings are the same, and what picking one is worth."""
    reference, *others = study.members
    seeds = {member.setting.seeds for member in study.members if member.setting}
    each = f", each of {_count(len(next(iter(seeds))), 'seed')}" if len(seeds) == 1 else ""
    start = (
        f"{len(study.members)} settings{each}; the seeds of a setting are averaged to one strategy. "
        f"The reference is the first, {reference.label}, and the rest of the page is about it."
    )
    same = [member for member in others if member.setting and member.setting.same_as]
    if len(same) == len(others):
        return start, (
            f"All {len(study.members)} settings are the same policy: their returns are identical on every day"
            f"{_reason(study.members)}. There is nothing to rank."
        )
    alike = [
        f"{member.label} is the same policy as {member.setting.same_as}, with identical returns on every day"
        f"{_reason([member])}: it is not ranked."
        for member in same
        if member.setting
    ]
    how = (
        f"Differences are Sharpe ratios minus those of {reference.label}: of the averaged strategies over the same "
        "days, and seed by seed, as the interquartile mean over seeds. Each interval is for itself: of twenty settings "
        "without any effect, one lies beside zero."
    )
    return start, *alike, how, *_selection(study)


def settings_caution(study: Study) -> str:
    """A warning about few seeds and about picking the best; nothing where all settings are the same."""
    if study.selection is None:
        return ""
    least = min((len(member.setting.seeds) for member in study.members if member.setting), default=1)
    few = f"{_count(least, 'seed')}: underpowered. 10 seeds are the least that count. " if study.underpowered else ""
    return f"{few}The best of several settings is partly the luckiest: its lead is smaller than it looks."


def settings_table(study: Study, evaluation: Evaluation) -> Table:
    """One row per setting, the reference first."""
    measures = [BY_FIELD[field] for field in FIGURES]
    against = [member.setting.against for member in study.members if member.setting and member.setting.against]
    reach, reference = common_reach(against), study.members[0].label
    rows = [
        Row((*_cells(member, reach), *(measure.cell(member.metrics) for measure in measures)), "" if at else "policy")
        for at, member in enumerate(study.members)
    ]
    columns = (
        Column("Setting", "seeds averaged", numeric=False),
        Column("Seeds"),
        Column("Difference", f"Sharpe, to {reference}"),
        Column("95 % interval", "against zero"),
        Column("Outcome", numeric=False),
        Column("Seed by seed", "difference, 95 %"),
        Column("Over seeds", "Sharpe, 95 %"),
        Column("Against 1/N", "Sharpe difference"),
        *(measure.column(evaluation.policy.year) for measure in measures),
    )
    return Table("study-table", columns, tuple(rows), sortable=True)


def _cells(member: Member, reach: float) -> tuple[Cell, ...]:
    setting = member.setting
    assert setting is not None  # a comparison's members have one
    seeds = number(float(len(setting.seeds)), 0)
    rest = (_middle(setting.middle), signed(member.verdict.difference, 2))
    if setting.against is None:
        return Cell(member.label), seeds, Cell(DASH), Cell(DASH), Cell("reference"), Cell(DASH), *rest
    if setting.same_as:
        same = Cell(f"IDENTICAL TO {setting.same_as}", note=_why(setting), tone="level")
        return Cell(member.label), seeds, Cell(DASH), Cell(DASH), same, Cell(DASH), *rest
    compared = (signed(setting.against.difference, 2), interval_cell(setting.against, reach), _outcome(setting.against))
    return Cell(member.label), seeds, *compared, _middle(setting.paired, with_sign=True), *rest


def _outcome(against: Comparison) -> Cell:
    kind = tone(against)
    return Cell(f"{OUTCOMES[kind]} {against.opponent}", tone=kind)


def _middle(found: Middle | None, *, with_sign: bool = False) -> Cell:
    """An interquartile mean over seeds with its interval."""
    if found is None:
        return Cell(DASH)
    middle, low, high = (signed(x, 2) if with_sign else number(x, 2) for x in found)
    return Cell(f"{middle.text} [{low.text}, {high.text}]", middle.value)


def _why(setting: Setting) -> str:
    if setting.handed_over == len(setting.seeds):
        return "kept the hand-over"
    return "abstains" if setting.abstaining == len(setting.seeds) else ""


def _reason(members: Sequence[Member]) -> str:
    """Why these settings are the same, where every run of theirs says so."""
    settings = [member.setting for member in members if member.setting]
    runs = sum(len(setting.seeds) for setting in settings)
    each = f"each of the {runs} runs" if runs > 1 else "its run"
    if sum(setting.handed_over for setting in settings) == runs:
        return f", since {each} kept the hand-over, the policy of phase 1"
    if sum(setting.abstaining for setting in settings) == runs:
        return f", since {each} abstains and holds the benchmark's portfolio"
    return ""


def _selection(study: Study) -> tuple[str, ...]:
    """Sentences on the selection bias of the best setting; undefined figures are left out."""
    chosen = study.selection
    if chosen is None or chosen.probabilistic is None:
        return ()
    alone = f"Probability that its active Sharpe ratio is above 0: {chosen.probabilistic:.2f} alone"
    says = f"Best against 1/N: {chosen.best}. {alone}"
    if chosen.deflated is not None:
        says += f", {chosen.deflated:.2f} deflated for {chosen.trials} settings"
    if chosen.deflated_effective is not None and chosen.effective_trials is not None:
        says += f", {chosen.deflated_effective:.2f} for the {chosen.effective_trials:.1f} that they amount to"
    if chosen.overfitting is None:
        return (f"{says}.",)
    return (f"{says}.", f"Probability that picking the best overfits (CSCV): {chosen.overfitting:.2f}.")


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"
