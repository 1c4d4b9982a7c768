"""How sure, crises and reality checks: tables and sentences with known answers."""

from dataclasses import replace
from pathlib import Path

import pytest

from finflow.evaluation.result import Comparison, Evaluation, Reality, Stress
from finflow.report.page import RunFacts, render
from finflow.report.scrutiny import (
    cards,
    comparison_table,
    lag_card,
    stress_all_table,
    stress_table,
)
from finflow.report.tables import DASH, Cell, probability, signed

NAN = float("nan")


def texts(cells: tuple[Cell, ...]) -> list[str]:
    return [cell.text for cell in cells]


def with_sharpe(evaluation: Evaluation, own: float | None, late: float | None) -> Evaluation:
    """The evaluation with these Sharpe ratios of the policy on time and one day late."""
    metrics = evaluation.metrics | {"policy": replace(evaluation.metrics["policy"], sharpe=own)}
    lagged = replace(evaluation.scrutiny.lagged, sharpe=late, annual_return=0.0432)
    return replace(evaluation, metrics=metrics, scrutiny=replace(evaluation.scrutiny, lagged=lagged))


def test_signs_and_p_values_are_written_plainly() -> None:
    assert [signed(x, 2).text for x in (0.126, -0.126, 0.004, -0.004, None)] == ["+0.13", "-0.13", "0.00", "0.00", DASH]
    assert signed(0.004, 1, 100).text == "+0.4"
    assert [probability(x).text for x in (0.0004, 0.0006, 1.0, None)] == ["< 0.001", "0.001", "1.000", DASH]


def test_each_comparison_is_drawn_against_zero_on_one_axis(evaluation: Evaluation) -> None:
    rows = (
        Comparison("1/N monthly", 0.5, 0.25, -0.5, 1.0, 0.2),
        Comparison("HRP", None, -0.5, -0.9, -0.1, 0.01),
        Comparison("momentum 12-1", 1.5, 0.5, 0.1, 0.9, 0.0),
        Comparison("buy and hold", None, NAN, NAN, NAN, None),
    )
    table = comparison_table(replace(evaluation, scrutiny=replace(evaluation.scrutiny, comparisons=rows)))
    assert texts(table.rows[0].cells) == ["1/N monthly", "+0.25", "[-0.50, 1.00]", "0.200", "+0.50"]
    assert texts(table.rows[3].cells) == ["buy and hold", *[DASH] * 4]
    assert [row.mark for row in table.rows] == ["opponent", "", "", ""]
    bars = [row.cells[2] for row in table.rows]
    assert [bar.tone for bar in bars] == ["level", "worse", "beats", ""]
    assert bars[3].interval is None
    reach = 1.15  # the farthest end of all rows, 1.0, and 15 % of air
    for bar, row in zip(bars[:3], rows, strict=False):
        assert bar.interval is not None
        assert bar.interval.zero == 50
        assert bar.interval.low == pytest.approx(50 + 50 * row.low / reach, abs=0.01)
        assert bar.interval.high == pytest.approx(50 + 50 * row.high / reach, abs=0.01)
        assert bar.interval.difference == pytest.approx(50 + 50 * row.difference / reach, abs=0.01)


def test_the_share_lost_by_a_day_of_lag_is_said_and_flagged_above_half(evaluation: Evaluation) -> None:
    def card(own: float | None, late: float | None) -> tuple[str, str, bool]:
        made = lag_card(with_sharpe(evaluation, own, late))
        return made.figure, made.meaning, made.flagged

    figure, meaning, flagged = card(1.0, 0.4)
    assert (figure, flagged) == ("0.40", True)
    assert "return 4.3 % a year, Sharpe ratio 0.40 instead of 1.00. 60 % of it is lost, more than half" in meaning
    assert card(1.0, 0.5)[2] is False
    assert "50 % of it is lost." in card(1.0, 0.5)[1]
    assert card(1.0, 0.49)[2] is True
    assert "All of it is lost" in card(0.2, -0.1)[1]
    assert card(0.5, 0.5)[1].endswith("Nothing is lost.")
    for own, late in ((-0.2, -0.5), (None, 0.1), (0.5, None)):
        assert card(own, late)[1].endswith("The share lost is undefined.")
        assert card(own, late)[2] is False


def test_spa_and_power_are_one_plain_sentence_each(evaluation: Evaluation) -> None:
    def said(p: float | None, least: float | None, found: float) -> list[str]:
        verdict = replace(evaluation.verdict, difference=found)
        scrutiny = replace(evaluation.scrutiny, spa_p=p, detectable=least)
        made = cards(replace(evaluation, verdict=verdict, scrutiny=scrutiny))
        return [f"{card.figure}: {card.meaning}" for card in made[:2]]

    assert said(0.41, 0.43, -0.3)[0].startswith("0.410: The best of all strategies here beats 1/N by no more")
    assert said(0.049, 0.43, -0.3)[0].startswith("0.049: At least one strategy here beats 1/N by more")
    assert said(0.05, 0.43, -0.3)[0].startswith("0.050: The best of all")
    power = said(0.41, 0.43, -0.3)[1]
    assert "could detect a Sharpe difference of 0.43 with 80 % power. The one found, -0.30, is smaller" in power
    assert said(0.41, 0.43, -0.5)[1].endswith("The one found, -0.50, is at least as large.")
    assert said(0.41, 0.43, NAN)[1].endswith("with 80 % power.")
    for card in said(None, None, 0.1):
        assert card.startswith(f"{DASH}: Undefined")


def test_a_crisis_has_a_row_for_policy_opponent_and_best_baseline(evaluation: Evaluation) -> None:
    table = stress_table(evaluation)
    first = evaluation.scrutiny.stress[0]
    assert [row.cells[1].text for row in table.rows[:3]] == ["policy", "1/N monthly", "maximum diversification"]
    assert [row.group for row in table.rows] == [True, False, False] * 2
    assert (table.rows[0].cells[0].text, table.rows[0].cells[0].note) == ("pandemic", "2020-02-19 to 2020-04-30")
    for row in table.rows[:3]:
        earned, fall = first.strategies[row.cells[1].text]
        assert texts(row.cells[2:]) == [f"{100 * earned:+.1f}", f"{100 * fall:.1f}"]
    everyone = stress_all_table(evaluation)
    assert [row.cells[0].text for row in everyone.rows] == list(evaluation.metrics)
    assert [column.label for column in everyone.columns[1:]] == ["pandemic", "pandemic", "inflation", "inflation"]


def test_a_best_baseline_that_is_the_opponent_stands_once(evaluation: Evaluation) -> None:
    same = replace(evaluation, scrutiny=replace(evaluation.scrutiny, best_baseline="1/N monthly"))
    assert [row.cells[1].text for row in stress_table(same).rows] == ["policy", "1/N monthly"] * 2


def test_a_window_without_a_crisis_has_no_such_section(small: Evaluation, brief: RunFacts, page_file: Path) -> None:
    page = render(small, brief)
    assert "s-stress" not in page
    assert "s-sure" in page
    assert 'id="s-stress"' in page_file.read_text(encoding="utf-8")


def test_a_flag_reaches_the_page_and_markup_in_names_does_not(
    small: Evaluation, brief: RunFacts, page_file: Path
) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    flagged = with_sharpe(small, 1.0, 0.1)
    scrutiny = replace(
        flagged.scrutiny,
        best_baseline=hostile,
        reality=(Reality("policy", 0.1, 0.1, 0.0, None), replace(flagged.scrutiny.reality[2], name=hostile)),
        comparisons=(replace(flagged.scrutiny.comparisons[0], opponent=hostile),) * 2,
        stress=(Stress(hostile, "2020-02-19", "2020-04-30", {"policy": (-0.1, 0.2)}),),
    )
    page = render(replace(flagged, scrutiny=scrutiny), brief)
    assert '<div class="flagged"><dt>Sharpe with one day of lag' in page
    assert 'class="flagged"' not in page_file.read_text(encoding="utf-8")
    assert "<img" not in page.split("<script>")[0]
    assert page.count("&lt;img src=x") >= 5
