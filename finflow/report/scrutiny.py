"""Robustness checks as tables and sentences: certainty, crises, contribution of each part of the policy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finflow.data.market import unit_of
from finflow.evaluation.linear_tilt import HORIZON, LINEAR
from finflow.evaluation.result import Comparison, Evaluation, GateInformation, Metrics, Reality, Regression, Stress
from finflow.report import tables
from finflow.report.tables import DASH, Cell, Column, Field, Row, Table, number, signed, table_of
from finflow.report.verdict import common_reach, tone

MOST_LOST = 0.5
"""Share of the Sharpe ratio: when one close of lag costs more, the result is flagged."""


@dataclass(frozen=True)
class Card:
    """One figure with what it means; `flagged` where it is a warning."""

    label: str
    figure: str
    meaning: str
    flagged: bool = False


def cards(evaluation: Evaluation) -> list[Card]:
    """Hansen's test, the power of the window, and the cost of a close of lag where it is known."""
    lag = lag_card(evaluation)
    return [_spa(evaluation), _power(evaluation), *([lag] if lag else [])]


def regression_says(evaluation: Evaluation) -> str:
    """Whether a regression would have done it: what the linear tilt is, and the paired Sharpe difference to it."""
    found = next((item for item in evaluation.scrutiny.comparisons if item.opponent == LINEAR), None)
    if found is None:
        return ""
    unit = unit_of(evaluation.policy.year)
    tilt = f"Would a regression have done it? {_tilt(evaluation.scrutiny.regression, unit)}"
    if not math.isfinite(found.difference):
        return f"{tilt} A Sharpe ratio is undefined over this window, so the two cannot be compared."
    side = "above" if found.difference >= 0 else "below"
    size = f"The policy's Sharpe ratio is {abs(found.difference):.2f} {side} that of the {LINEAR}"
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return f"{tilt} {size}; the window is too short for an interval."
    ends = f"95 % [{number(found.low, 2).text}, {number(found.high, 2).text}]"
    answer = {
        "beats": "no, the policy did better",
        "worse": "yes, and better",
        "level": "the two cannot be told apart",
    }[tone(found)]
    return f"{tilt} {size}, {ends}: {answer}."


def _tilt(regression: Regression | None, unit: str) -> str:
    what = (
        f"The {LINEAR} moves 1/N towards the names whose next {HORIZON} {unit}s a ridge regression on the features of "
        "the environment"
    )
    if regression is None:
        return f"{what} predicts best, fitted and chosen on each fold's own train and validation rows."
    if regression.strength == 0:
        return f"{what} predicts best; on the validation rows no such tilt was worth its costs, so it holds 1/N."
    return (
        f"{what} predicts best, with strength {regression.strength:g} and {regression.rate:.0%} of the way a decision, "
        "as chosen on the validation rows."
    )


def comparison_table(evaluation: Evaluation) -> Table:
    """The policy against each opponent, the intervals drawn on one axis."""
    found = evaluation.scrutiny.comparisons
    reach = common_reach(found)
    fields: list[Field[Comparison]] = [
        (Column("Against", numeric=False), lambda item: Cell(item.opponent)),
        (Column("Sharpe difference", "a year"), lambda item: signed(item.difference, 2)),
        (Column("95 % interval", "bar: against zero"), lambda item: tables.interval_cell(item, reach)),
        (Column("p-value", "of equal Sharpe"), lambda item: tables.probability(item.p_value)),
        (Column("Active information ratio", "a year"), lambda item: signed(item.active_ratio, 2)),
    ]
    return table_of("comparison-table", found, fields, lambda item: tables.mark(item.opponent, evaluation))


def _spa(evaluation: Evaluation) -> Card:
    p_value = evaluation.scrutiny.spa_p
    if p_value is None:
        meaning = "Undefined over this window, so nothing can be said."
    elif p_value < 0.05:
        meaning = (
            "At least one strategy here beats 1/N by more than trying them all explains. It need not be the policy."
        )
    else:
        meaning = "The best of all strategies here beats 1/N by no more than luck explains when so many are tried."
    return Card("Hansen's SPA test, p-value", tables.probability(p_value).text, meaning)


def _power(evaluation: Evaluation) -> Card:
    least, found = evaluation.scrutiny.detectable, evaluation.verdict.difference
    label = "Detectable Sharpe difference"
    if least is None or math.isnan(least):
        return Card(label, number(None, 2).text, "Undefined over this window, so nothing can be said.")
    meaning = f"This window could detect a Sharpe difference of {least:.2f} with 80 % power."
    if math.isfinite(found):
        size = "smaller: one of its size would often go unseen here" if abs(found) < least else "at least as large"
        meaning += f" The one found, {signed(found, 2).text}, is {size}."
    return Card(label, f"{least:.2f}", meaning)


def lag_card(evaluation: Evaluation) -> Card | None:
    """The policy one close late, and the share of its Sharpe ratio that this costs; None where returns are given."""
    lagged = evaluation.scrutiny.lagged
    if lagged is None:
        return None
    before, after = evaluation.metrics[evaluation.policy.name].sharpe, lagged.sharpe
    meaning = (
        f"Each trade one close later than decided: return {_returned(lagged)}, "
        f"Sharpe ratio {number(after, 2).text} instead of {number(before, 2).text}."
    )
    label = f"Sharpe with one {unit_of(evaluation.policy.year)} of lag"
    if before is None or after is None or before <= 0:
        return Card(label, number(after, 2).text, f"{meaning} The share lost is undefined.")
    lost = (before - after) / before
    flagged, share = lost > MOST_LOST, "All" if lost >= 1 else f"{100 * lost:.0f} %"
    said = f"{share} of it is lost" if lost > 0 else "Nothing is lost"
    why = ", more than half: the result depends on trading at the close of the decision" if flagged else ""
    return Card(label, number(after, 2).text, f"{meaning} {said}{why}.", flagged)


def _returned(metrics: Metrics) -> str:
    if metrics.annual_return is None:
        return f"{tables.total_return(metrics).text} % in all"
    return f"{tables.BY_FIELD['annual_return'].cell(metrics).text} % a year"


def stress_table(evaluation: Evaluation) -> Table:
    """Policy, 1/N and the best baseline in each crisis."""
    wanted = dict.fromkeys((evaluation.policy.name, evaluation.verdict.opponent, evaluation.scrutiny.best_baseline))
    rows: list[Row] = []
    for crisis in evaluation.scrutiny.stress:
        main = [name for name in wanted if name in crisis.strategies]
        for i, name in enumerate(main):
            dates = f"{crisis.first} to {crisis.last}" if i == 0 else ""
            cells = (Cell(crisis.name, note=dates), Cell(name), *_fall(crisis, name))
            rows.append(Row(cells, tables.mark(name, evaluation), group=i == 0))
    columns = (
        Column("Crisis", f"{unit_of(evaluation.policy.year)}s held", numeric=False),
        Column("Strategy", numeric=False),
        Column("Return", "% in all"),
        Column("Max drawdown", "%"),
    )
    return Table("stress-table", columns, tuple(rows))


def stress_all_table(evaluation: Evaluation) -> Table:
    """Every strategy, two columns a crisis."""
    crises = evaluation.scrutiny.stress
    names = [name for name in evaluation.metrics if any(name in crisis.strategies for crisis in crises)]
    rows = [
        Row((Cell(name), *(cell for crisis in crises for cell in _fall(crisis, name))), tables.mark(name, evaluation))
        for name in names
    ]
    pairs = [(Column(crisis.name, "return, %"), Column(crisis.name, "drawdown, %")) for crisis in crises]
    columns = (Column("Strategy", numeric=False), *(column for pair in pairs for column in pair))
    return Table("stress-all-table", columns, tuple(rows), sortable=True)


def _fall(crisis: Stress, name: str) -> tuple[Cell, Cell]:
    earned, drawdown = crisis.strategies.get(name, (None, None))
    return signed(earned, 1, 100), number(drawdown, 1, 100)


WITHOUT = "without "
"""Start of a variant's name that leaves one expert out; the expert's name follows."""
FROZEN = "experts at their priors"
MEANT = {"shuffled gate": "the gate's timing (shuffled gate)", FROZEN: f"what the experts learnt ({FROZEN})"}
"""Name of the removed part for variants that do not leave out an expert; others keep their own name."""
UNMOVED = 0.005
"""Share of wealth: experts that moved less than this count as their priors."""


def reality_table(reality: Sequence[Reality]) -> Table:
    """Each variant beside the whole policy, which is the first row; the intervals drawn on one axis."""
    reach = common_reach([row.worth for row in reality if row.worth is not None])
    fields: list[Field[Reality]] = [
        (Column("Variant", "validation rows", numeric=False), lambda row: Cell(row.name)),
        (Column("Sharpe", "ratio"), lambda row: number(row.sharpe, 2)),
        (
            Column("Worth of the part", "Sharpe lost without it"),
            lambda row: signed(row.worth and row.worth.difference, 2),
        ),
        (
            Column("95 % interval", "bar: against zero"),
            lambda row: tables.interval_cell(row.worth, reach) if row.worth else Cell(DASH),
        ),
        (Column("Active ratio", "against 1/N"), lambda row: signed(row.active_ratio, 2)),
        (Column("Weights moved", "% of wealth"), lambda row: number(row.worth and row.distance, 1, 100)),
    ]
    return table_of("reality-table", reality, fields, lambda row: "policy" if row.worth is None else "")


def reality_says(reality: Sequence[Reality], experts: Sequence[str], gate: GateInformation | None) -> tuple[str, ...]:
    """Sentences on the parts that earn something or nothing, and on whether the gate follows the market regime."""
    if not reality:
        return ()
    if len(reality) == 1:
        return (
            "These runs are judged as the average of their portfolios, which has no one gate: judge one run alone.",
        )
    if reality[0].sharpe is None:
        return ("The policy's Sharpe ratio is undefined on the validation rows, so nothing can be said.",)
    left_out = {f"{WITHOUT}{name}": name for name in experts}
    judged = [(row.name, row.worth) for row in reality[1:] if row.worth and math.isfinite(row.worth.difference)]
    of_experts = [(left_out[name], worth) for name, worth in judged if name in left_out]
    of_others = [(MEANT.get(name, name), worth) for name, worth in judged if name not in left_out]
    says = [*_say(of_experts, "Leaving out"), *_say(of_others, "Taking away")]
    frozen = next((row.distance for row in reality if row.name == FROZEN), None)
    if frozen is not None and frozen < UNMOVED:
        says.append(f"The experts are still their priors: what they learnt moves {100 * frozen:.1f} % of wealth.")
    elif frozen is not None:
        says.append(f"What the experts learnt moves {100 * frozen:.1f} % of wealth away from their priors.")
    if gate is not None:
        count = round(100 * gate.p_value)
        matched = f"{count} of 100" if count else "fewer than 1 of 100"
        fit = f"moved to other times at random, the regimes fit it as well in {matched} cases"
        says.append(f"The gate {'follows' if gate.found else 'does not follow'} the market regime: {fit}.")
    return tuple(says)


def _say(worths: Sequence[tuple[str, Comparison]], without: str) -> list[str]:
    """Sentences on the parts that are worth nothing, on those that may be, and on those that are worth something."""
    idle = [name for name, worth in worths if worth.difference <= 0]
    earning = [name for name, worth in worths if worth.low > 0]
    unclear = [name for name, _ in worths if name not in (*idle, *earning)]
    effects = {
        "costs nothing: the Sharpe ratio is no lower": idle,
        "lowers the Sharpe ratio, by no more than luck could": unclear,
        "lowers the Sharpe ratio by more than luck could": earning,
    }
    return [f"{without} {_either(names)} {effect}." for effect, names in effects.items() if names]


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
