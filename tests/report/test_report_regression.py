"""Would a regression have done it? One plain sentence, with the paired interval."""

from dataclasses import replace

from finflow.evaluation.result import Comparison, Evaluation, Regression
from finflow.report.page import RunFacts, render
from finflow.report.scrutiny import regression_says

NAN = float("nan")
TILT = Regression({"x": 1.0}, 0.25, 0.1, 0.62)


def says(
    evaluation: Evaluation, difference: float, low: float, high: float, regression: Regression | None = TILT
) -> str:
    found = (Comparison("linear tilt", 0.1, difference, low, high, 0.5),)
    scrutiny = replace(evaluation.scrutiny, comparisons=found, regression=regression)
    return regression_says(replace(evaluation, scrutiny=scrutiny))


def test_the_policy_is_compared_with_the_linear_tilt(evaluation: Evaluation) -> None:
    level = says(evaluation, -0.044, -0.31, 0.22)
    assert level.startswith("Would a regression have done it? The linear tilt")
    assert "strength 0.25 and 10% of the way a decision" in level.replace("\u00a0", "")
    assert level.endswith(
        "The policy's Sharpe ratio is 0.04 below that of the linear tilt, 95 % [-0.31, 0.22]: "
        "the two cannot be told apart."
    )
    assert says(evaluation, 0.3, 0.1, 0.5).endswith("0.30 above that of the linear tilt, 95 % [0.10, 0.50]: "
                                                    "no, the policy did better.")  # fmt: skip
    assert says(evaluation, -0.3, -0.5, -0.1).endswith("95 % [-0.50, -0.10]: yes, and better.")


def test_what_is_undefined_is_said_so(evaluation: Evaluation) -> None:
    assert says(evaluation, NAN, NAN, NAN).endswith("so the two cannot be compared.")
    assert says(evaluation, 0.2, NAN, NAN).endswith("the window is too short for an interval.")


def test_a_tilt_that_holds_equal_weight_and_one_of_several_folds_say_so(evaluation: Evaluation) -> None:
    still = replace(TILT, strength=0.0, rate=1.0, information_ratio=0.0)
    assert "no such tilt was worth its costs, so it holds 1/N" in says(evaluation, 0.1, -0.1, 0.3, still)
    assert "each fold's own train and validation rows" in says(evaluation, 0.1, -0.1, 0.3, None)


def test_the_page_has_the_sentence_the_row_and_the_line(evaluation: Evaluation, facts: RunFacts) -> None:
    page = render(evaluation, facts)
    assert "Would a regression have done it?" in page
    assert page.count('"name":"linear tilt"') >= 1
    cells = page.split('id="comparison-table"')[1].split("</table>")[0]
    assert "linear tilt" in cells
    assert "linear tilt" in page.split('id="metrics-table"')[1].split("</table>")[0]
