"""What each part of the policy is worth: the table, and the sentences for every case."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from finflow.evaluation.result import Comparison, Evaluation, GateInformation, Reality
from finflow.report.page import RunFacts, render
from finflow.report.scrutiny import reality_says, reality_table
from finflow.report.tables import DASH, Cell


def texts(cells: tuple[Cell, ...]) -> list[str]:
    return [cell.text for cell in cells]


def variant(name: str, sharpe: float | None, low: float, high: float) -> Reality:
    middle = (low + high) / 2
    return Reality(name, sharpe, None, 0.1, Comparison(name, None, middle, low, high, None))


def says(*rows: Reality, whole: float | None = 0.8, gate: GateInformation | None = None) -> str:
    policy = Reality("policy", whole, 0.1, 0.0, None)
    return " ".join(reality_says([policy, *rows], ("momentum", "growth", "value"), gate))


def test_what_adds_nothing_is_named() -> None:
    """Adds nothing: no lower without it. Unclear: lower, and 0 inside the interval. Earns: the interval above 0."""
    idle, unclear = ("without momentum", 0.8, -0.1, 0.1), ("without growth", 0.7, -0.1, 0.3)
    earning = ("without value", 0.5, 0.1, 0.5)
    text = says(variant(*idle), variant(*unclear), variant(*earning))
    assert text == (
        "Leaving out momentum costs nothing: the Sharpe ratio is no lower."
        " Leaving out growth lowers the Sharpe ratio, by no more than luck could."
        " Leaving out value lowers the Sharpe ratio by more than luck could."
    )
    two = says(variant(*idle), variant("without value", 0.9, -0.3, 0.1))
    assert two == "Leaving out momentum or value costs nothing: the Sharpe ratio is no lower."
    both = says(variant("without momentum", 0.7, -0.1, 0.3), variant(*unclear))
    assert both == "Leaving out momentum or growth lowers the Sharpe ratio, by no more than luck could."
    assert "undefined" in says(variant(*idle), whole=None)
    assert says(variant("without momentum", None, math.nan, math.nan)) == ""
    assert reality_says([], ("momentum",), None) == ()


def test_other_parts_are_judged_alike() -> None:
    timing = "the gate's timing (shuffled gate)"
    assert (
        says(variant("shuffled gate", 0.9, -0.3, 0.1))
        == f"Taking away {timing} costs nothing: the Sharpe ratio is no lower."
    )
    unclear = f"Taking away {timing} lowers the Sharpe ratio, by no more than luck could."
    assert says(variant("shuffled gate", 0.7, -0.1, 0.3)) == unclear
    earning = "Taking away another way lowers the Sharpe ratio by more than luck could."
    assert says(variant("another way", 0.5, 0.1, 0.5)) == earning


@pytest.mark.parametrize(("moved", "fragment"), [(0.118, "moves 11.8 % of wealth away"), (0.001, "still their priors")])
def test_what_experts_learnt_is_told_by_what_it_moves(moved: float, fragment: str) -> None:
    frozen = replace(variant("experts at their priors", 0.7, -0.1, 0.3), distance=moved)
    assert fragment in says(frozen)


def test_the_gate_is_told_to_follow_the_regime_or_not() -> None:
    row = variant("without momentum", 0.7, -0.1, 0.3)
    follows = says(row, gate=GateInformation(0.021, 0.013, 0.012))
    shifted = "moved to other times at random, the regimes fit it as well in"
    assert f"The gate follows the market regime: {shifted} 1 of 100 cases." in follows
    blind = says(row, gate=GateInformation(0.004, 0.013, 0.4))
    assert f"The gate does not follow the market regime: {shifted} 40 of 100 cases." in blind
    sure = says(row, gate=GateInformation(0.021, 0.013, 0.001))
    assert f"{shifted} fewer than 1 of 100 cases." in sure


def test_variants_stand_beside_the_whole_policy() -> None:
    table = reality_table(
        [
            Reality("policy", 0.8, 0.2, 0.0, None),
            Reality("without a", 0.75, None, 0.123, Comparison("a", None, 0.05, -0.1, 0.2, None)),
            Reality("b", None, 0.3, 0.0, Comparison("b", None, math.nan, math.nan, math.nan, None)),
        ]
    )
    assert [texts(row.cells) for row in table.rows] == [
        ["policy", "0.80", DASH, DASH, "+0.20", DASH],
        ["without a", "0.75", "+0.05", "[-0.10, 0.20]", DASH, "12.3"],
        ["b", DASH, DASH, DASH, "+0.30", "0.0"],
    ]
    assert [row.mark for row in table.rows] == ["policy", "", ""]
    assert table.rows[1].cells[3].interval is not None


def test_the_page_says_that_the_checks_are_of_validation_rows(
    page_file: Path, small: Evaluation, brief: RunFacts
) -> None:
    page = page_file.read_text(encoding="utf-8")
    assert "on the <b>validation</b> rows" in page
    assert "Leaving out correlation or defensive costs nothing" in page
    assert "The gate follows the market regime" in page
    assert "s-reality" not in render(replace(small, scrutiny=replace(small.scrutiny, reality=())), brief)


def test_an_average_of_runs_has_no_parts_to_take_away(small: Evaluation, brief: RunFacts) -> None:
    page = render(replace(small, scrutiny=replace(small.scrutiny, reality=small.scrutiny.reality[:1])), brief)
    assert "which has no one gate: judge one run alone" in page
    assert 'id="reality-table"' not in page
