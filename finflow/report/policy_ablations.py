"""The contribution of each part of the policy on validation rows: a table and its summary in words."""

import math
from collections.abc import Callable, Sequence

from finflow.evaluation.result import Comparison, GateInformation, Reality
from finflow.report.tables import Cell, Column, Field, Table, interval_cell, number, signed, table_of
from finflow.report.verdict import common_reach

WITHOUT = "without "
"""Start of a variant's name that leaves one expert out; the expert's name follows."""
FROZEN = "experts at their priors"
MEANT = {
    "shuffled gate": "the gate's timing (shuffled gate)",
    FROZEN: f"what the experts learnt ({FROZEN})",
}
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
            lambda row: signed(None if row.worth is None else row.worth.difference, 2),
        ),
        (
            Column("95 % interval", "bar: against zero"),
            lambda row: number(None, 2) if row.worth is None else interval_cell(row.worth, reach),
        ),
        (Column("Active ratio", "against 1/N"), lambda row: signed(row.active_ratio, 2)),
        (
            Column("Weights moved", "% of wealth"),
            lambda row: number(None if row.worth is None else row.distance, 1, 100),
        ),
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
    of_parts = [*_say(of_experts, _idle_experts, "Leaving out"), *_say(of_others, _idle_others, "Taking away")]
    found = [*of_parts, _learnt_says(reality), gate_says(gate)]
    return tuple(sentence for sentence in found if sentence)


def _say(worths: Sequence[tuple[str, Comparison]], idle_says: Callable[[list[str]], str], without: str) -> list[str]:
    """Sentences on parts: those that are worth nothing by `idle_says`, on others what the policy is worth `without`."""
    idle, unclear, earning = _sorted(worths)
    says = [idle_says(idle)] if idle else []
    for names, luck in ((unclear, ", by no more than"), (earning, " by more than")):
        if names:
            says.append(f"{without} {_listed(names, 'or')} lowers the Sharpe ratio{luck} luck could.")
    return says


def _idle_experts(idle: list[str]) -> str:
    noun, verb, them = ("expert", "adds", "it") if len(idle) == 1 else ("experts", "add", "any one of them")
    return f"The {noun} {_listed(idle)} {verb} nothing here: without {them} the Sharpe ratio is no lower."


def _idle_others(idle: list[str]) -> str:
    return f"Taking away {_listed(idle, 'or')} costs nothing: the Sharpe ratio is no lower."


def _sorted(worths: Sequence[tuple[str, Comparison]]) -> tuple[list[str], list[str], list[str]]:
    """Names of the parts that are worth nothing, that may be worth something, and that are beyond the interval."""
    idle = [name for name, worth in worths if worth.difference <= 0]
    earning = [name for name, worth in worths if worth.low > 0]
    return idle, [name for name, _ in worths if name not in (*idle, *earning)], earning


def _learnt_says(reality: Sequence[Reality]) -> str:
    moved = next((row.distance for row in reality if row.name == FROZEN), None)
    if moved is None:
        return ""
    if moved < UNMOVED:
        return f"The experts are still their priors: what they learnt moves {100 * moved:.1f} % of wealth."
    return f"What the experts learnt moves {100 * moved:.1f} % of wealth away from their priors."


def gate_says(gate: GateInformation | None) -> str:
    """Whether the gate follows the regime, in words; nothing where there is no gate, or one regime alone."""
    if gate is None:
        return ""
    count = round(100 * gate.p_value)
    matched = f"{count} of 100" if count else "fewer than 1 of 100"
    fit = f"moved to other times at random, the regimes fit it as well in {matched} cases"
    return f"The gate {'follows' if gate.found else 'does not follow'} the market regime: {fit}."


def _listed(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
