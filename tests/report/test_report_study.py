"""Several runs on one page: what it says of seeds, folds and runs side by side."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finflow.evaluation.result import Evaluation
from finflow.evaluation.study import Member, Study
from finflow.report import figures, theme
from finflow.report.page import RunFacts, render
from finflow.report.study import study_view


def test_seeds_are_drawn_with_their_interquartile_mean(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    study = studies["seeds"]
    assert study.middle is not None
    view = study_view(study, evaluation)
    assert view.chart is not None
    dots, mean, average, opponent = view.chart.figure.to_plotly_json()["data"]
    assert list(dots["x"]) == sorted(round(m.metrics.sharpe or 0, 4) for m in study.members)
    by_label = {m.label: m.metrics.sharpe or 0 for m in study.members}
    for label, sharpe in zip(dots["customdata"], dots["x"], strict=True):
        assert sharpe == pytest.approx(by_label[label.replace("&lt;", "<").replace("&gt;", ">")], abs=1e-4)
    assert mean["x"][0] + mean["error_x"]["array"][0] == pytest.approx(study.middle[2], abs=1e-4)
    assert mean["x"][0] - mean["error_x"]["arrayminus"][0] == pytest.approx(study.middle[1], abs=1e-4)
    assert average["x"] == [round(evaluation.metrics["policy"].sharpe or 0, 4)]
    assert opponent["x"] == [round(evaluation.metrics["1/N monthly"].sharpe or 0, 4)]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in dots["customdata"]
    low, mid, high = study.middle[1], study.middle[0], study.middle[2]
    assert view.says[-1].endswith(f"{mid:.2f}, 95 % [{low:.2f}, {high:.2f}].")


def test_few_seeds_are_called_underpowered(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    assert study_view(studies["seeds"], evaluation).caution.startswith("9 seeds: underpowered.")
    assert study_view(replace(studies["seeds"], underpowered=False), evaluation).caution == ""


def test_a_seed_without_a_sharpe_ratio_is_counted_and_not_drawn(
    evaluation: Evaluation, studies: dict[str, Study]
) -> None:
    first, *rest = studies["seeds"].members
    flat = replace(first, metrics=replace(first.metrics, sharpe=None))
    view = study_view(replace(studies["seeds"], members=(flat, *rest), middle=None), evaluation)
    assert view.chart is not None
    assert view.chart.note == "1 without a defined Sharpe ratio not drawn."
    assert [len(trace["x"]) for trace in view.chart.figure.to_plotly_json()["data"]] == [8, 1, 1]
    assert len(view.says) == 1
    assert study_view(replace(studies["seeds"], members=(flat,), middle=None), evaluation).chart is None


def test_members_stand_side_by_side_with_their_verdicts(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    for kind, last in (("seeds", "average"), ("folds", "pooled")):
        study = studies[kind]
        table = study_view(study, evaluation).table
        labels = [column.label for column in table.columns]
        names = [*(member.label for member in study.members), last]
        assert [row.cells[0].text for row in table.rows] == names
        assert [i for i, row in enumerate(table.rows) if row.mark == "policy"] == [len(names) - 1]
        for row, member in zip(table.rows, study.members, strict=False):
            assert row.cells[labels.index("Verdict")].text == f"{member.verdict.outcome} 1/N"
            assert row.cells[labels.index("Sharpe")].value == member.metrics.sharpe
            assert row.cells[labels.index("95 % interval")].value == member.verdict.low
        assert table.columns[labels.index("Verdict")].unit == "against 1/N monthly"


def test_settings_stand_beside_the_reference(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    study = studies["comparison"]
    view = study_view(study, evaluation)
    labels = [column.label for column in view.table.columns]
    assert view.table.columns[labels.index("Difference")].unit == "Sharpe, to bcell"
    assert [row.cells[0].text for row in view.table.rows] == [member.label for member in study.members]
    assert [row.mark for row in view.table.rows] == ["policy", "", ""]
    first, second, third = (dict(zip(labels, row.cells, strict=True)) for row in view.table.rows)
    assert (first["Outcome"].text, first["Difference"].text) == ("reference", "–")
    assert (second["Outcome"].text, second["Outcome"].tone) == ("BEATS bcell", "beats")
    assert (second["Difference"].text, second["95 % interval"].text) == ("+0.40", "[0.10, 0.70]")
    assert second["Seed by seed"].text == "+0.30 [+0.20, +0.50]"
    assert second["Over seeds"].text == "0.90 [0.70, 1.10]"
    assert second["Sharpe"].value == study.members[1].metrics.sharpe
    assert third["Outcome"].text == "IDENTICAL TO bcell"
    assert third["Outcome"].note == "kept the hand-over"
    assert third["Difference"].text == "–"
    assert view.caution.startswith("2 seeds: underpowered.")
    assert "3 settings, each of 2 seeds;" in view.says[0]
    assert view.says[1].endswith(
        "since each of the 2 runs kept the hand-over, the policy of phase 1: it is not ranked."
    )
    assert "0.80 deflated for 2 settings" in view.says[3]


def test_settings_that_are_all_the_same_are_not_ranked(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    first, _, third = studies["comparison"].members
    assert third.setting is not None
    abstaining = replace(third.setting, handed_over=0, abstaining=2)
    members = (first, replace(third, label="a", setting=abstaining))
    same = replace(studies["comparison"], members=members, selection=None)
    view = study_view(same, evaluation)
    assert view.says[1:] == (
        "All 2 settings are the same policy: their returns are identical on every day. There is nothing to rank.",
    )
    assert first.setting is not None
    start = replace(first, setting=replace(first.setting, abstaining=2))
    view = study_view(replace(same, members=(start, members[1])), evaluation)
    assert ", since each of the 4 runs abstains and holds the benchmark's portfolio. There is" in view.says[1]
    assert view.caution == ""


def test_the_pooled_row_is_the_verdict_of_the_page(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    pooled = study_view(studies["folds"], evaluation).table.rows[-1]
    found = evaluation.verdict
    assert pooled.cells[2].text == f"[{found.low:.2f}, {found.high:.2f}]"
    assert pooled.cells[4].value == evaluation.metrics["policy"].sharpe


def test_opponents_that_differ_are_named_row_by_row(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    first, *rest = studies["folds"].members
    other = Member(first.label, first.metrics, replace(first.verdict, opponent="1/N daily"))
    table = study_view(replace(studies["folds"], members=(other, *rest)), evaluation).table
    assert [row.cells[3].note for row in table.rows[:2]] == ["against 1/N daily", "against 1/N monthly"]
    assert table.columns[3].unit == ""


def test_folds_of_several_seeds_show_windows_seeds_and_the_pooled_average(
    stitched: Evaluation, studies: dict[str, Study]
) -> None:
    folds, seeds = studies["folds"], studies["seeds"]
    both = replace(folds, seeds=seeds.members, middle=(0.5, 0.1, 0.9), underpowered=True)
    view = study_view(both, stitched)
    firsts = [row.cells[0].text for row in view.table.rows]
    own = [f"{member.label}, pooled" for member in seeds.members]
    assert firsts == [*(member.label for member in folds.members), *own, "average, pooled"]
    assert view.table.rows[-1].mark == "policy"
    assert view.subject == f"walk-forward, stitched, average of {len(own)} seeds"
    assert view.caution.startswith(f"{len(own)} seeds: underpowered")
    said = " ".join(view.says)
    assert "The verdict above is the pooled one" in said
    assert "Each seed over all windows: " in said
    assert "95 % [0.10, 0.90]" in said


def test_outcomes_are_counted(evaluation: Evaluation, studies: dict[str, Study]) -> None:
    outcomes = [member.verdict.outcome for member in studies["folds"].members]
    worse, level = outcomes.count("WORSE THAN"), outcomes.count("INDISTINGUISHABLE FROM")
    assert worse > 0
    assert worse + level == 4
    says = study_view(studies["folds"], evaluation).says
    assert says[1] == f"Each on its own: {worse} × WORSE THAN 1/N, {level} × INDISTINGUISHABLE FROM 1/N."


def test_the_title_says_what_was_stitched(
    study_files: dict[str, Path], studies: dict[str, Study], small: Evaluation, facts: RunFacts
) -> None:
    page = study_files["folds"].read_text(encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", page)
    assert title
    assert title[1] == f"INDISTINGUISHABLE FROM 1/N · {facts.title}, walk-forward, stitched · FinFlow"
    assert "test windows from 2000-01-03 to" in page
    assert "s-costs" not in page
    assert study_view(studies["seeds"], small).subject == "average of 9 seeds"
    assert study_view(studies["comparison"], small).subject == "first of 3 settings"


@pytest.mark.parametrize("kind", ["seeds", "folds", "comparison"])
def test_markup_in_a_label_stays_text(small: Evaluation, studies: dict[str, Study], brief: RunFacts, kind: str) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    members = tuple(replace(member, label=hostile) for member in studies[kind].members)
    page = render(small, brief, replace(studies[kind], members=members))
    assert "<img" not in page.split("<script>")[0]
    assert "&lt;img src=x" in page
    assert not set("<>&") & set(page.split('id="chart-data">')[1].split("</script>")[0])


def test_the_same_study_gives_the_same_bytes(small: Evaluation, brief: RunFacts, studies: dict[str, Study]) -> None:
    page = render(small, brief, studies["seeds"])
    assert page == render(small, brief, studies["seeds"])
    assert 'id="s-study"' in page


def test_every_link_has_its_section_and_every_section_its_link(
    page_file: Path, study_files: dict[str, Path], small: Evaluation, brief: RunFacts
) -> None:
    pages = [path.read_text(encoding="utf-8") for path in (page_file, *study_files.values())]
    for page in (*pages, render(small, brief)):
        body = page.split("<body>")[1].split("<script>")[0]
        sections = re.findall(r'<section id="(s-\w+)"', body)
        assert re.findall(r'href="#(s-\w+)"', body) == sections
        assert len(sections) >= 12
        assert ("s-study" in sections) == (page in pages[1:])


def test_the_time_axis_leaves_out_the_months_between_stitched_windows(
    evaluation: Evaluation, stitched: Evaluation
) -> None:
    days = np.array(["2000-03-30", "2000-04-03", "2000-05-31", "2003-11-05", "2003-12-01"], dtype="datetime64[D]")
    assert theme.seams(days) == [("2000-06-01", "2003-11-01")]
    assert theme.seams(evaluation.policy.dates) == []
    for make in (figures.equity_chart, figures.weights_chart, figures.gate_chart, figures.trading_chart):
        layout = make(stitched).figure.to_plotly_json()["layout"]
        axes = [axis for name, axis in layout.items() if name.startswith("xaxis")]
        assert all(len(axis["rangebreaks"]) == 3 for axis in axes)
        assert tuple(axes[0]["ticktext"]) == ("2000", "2001", "2008", "2009", "2013", "2014", "2018", "2019")
        assert "rangebreaks" not in make(evaluation).figure.to_plotly_json()["layout"]["xaxis"]


def test_regime_bars_end_with_their_window(stitched: Evaluation) -> None:
    bars = [t for t in figures.gate_chart(stitched).figure.to_plotly_json()["data"] if t["type"] == "bar"]
    dates = stitched.policy.dates.astype("datetime64[D]")
    ends = np.flatnonzero(np.diff(dates) > np.timedelta64(90, "D"))
    first, last = np.r_[0, ends + 1], np.r_[ends, len(dates) - 1]
    total = int((dates[last] - dates[first]).astype(int).sum()) + len(first)
    assert sum(sum(t["x"]) for t in bars) == total * 86_400_000
