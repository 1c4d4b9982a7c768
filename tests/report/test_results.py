"""The result of an evaluation as a pandas user meets it: a line, a table, metrics, curve and figure."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from finflow.evaluation.result import Evaluation
from finflow.stages.results import EvaluateResult


@pytest.fixture
def result(evaluation: Evaluation) -> EvaluateResult:
    return EvaluateResult(Path("out"), Path("out/report.html"), evaluation, None, (), {}, 0, "")


def test_it_is_a_line_and_a_table(result: EvaluateResult) -> None:
    assert repr(result) == f"EvaluateResult({result.evaluation.verdict.line()}, out/report.html)"
    page = result._repr_html_()
    assert page.count("<tr") == 2 + len(result.evaluation.metrics)  # two of names
    assert f"<td>{result.evaluation.metrics['policy'].sharpe:.3g}</td>" in page


def test_metrics_are_a_row_a_strategy(result: EvaluateResult) -> None:
    metrics = result.evaluation.metrics
    unknown = replace(metrics["policy"], sharpe=None)
    result = replace(result, evaluation=replace(result.evaluation, metrics={**metrics, "policy": unknown}))
    assert result.metrics.index.tolist() == list(metrics)
    for name, one in result.evaluation.metrics.items():
        for figure, value in asdict(one).items():
            found = result.metrics.loc[name, figure]
            assert math.isnan(found) if value is None else found == value
    assert "–" in result._repr_html_()


def test_the_curve_is_the_growth_of_each_strategy(result: EvaluateResult) -> None:
    evaluation = result.evaluation
    assert result.curve.columns.tolist() == ["policy", *evaluation.baselines]
    assert result.curve.index.values.astype("datetime64[D]").tolist() == evaluation.policy.dates.tolist()
    for name, track in evaluation.baselines.items():
        assert result.curve[name].tolist() == track.nav.tolist()


def test_the_figure_stands_alone(result: EvaluateResult) -> None:
    figure = result.plot()
    assert figure.layout.title.text.startswith("Equity and drawdown against 1/N")
    assert figure.layout.height == 720
    assert {"policy", "1/N monthly"} <= {trace.name for trace in figure.data}


def test_parts_of_it_are_short_too(result: EvaluateResult) -> None:
    track = result.evaluation.policy
    assert repr(track) == f"Track(policy, {track.dates[0]} to {track.dates[-1]})"
    assert repr(result.evaluation).startswith(f"Evaluation({result.verdict.line()}, ")
    assert len(repr(result.evaluation)) < 200
