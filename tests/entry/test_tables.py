"""What `evaluate` prints, in the units of the report."""

from dataclasses import replace

import numpy as np
import pytest

from finflow.cli import tables
from finflow.evaluation.metrics import measure


def test_figures_are_printed_in_the_units_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    days = np.full(252, 0.001)
    days[::2] = -0.0005
    found = measure(days, np.full(252, 0.01), np.array([[0.5, 0.5]] * 252))
    tables.show_metrics({"policy": found, "1/N daily": replace(found, sharpe=None)}, 252)
    text = capsys.readouterr().out
    printed = [line.split() for line in text.splitlines()]
    (policy,) = [words for words in printed if "policy" in words]
    assert found.annual_return is not None
    assert f"{100 * found.annual_return:.1f}" in policy
    assert f"{found.turnover:.2f}" in policy
    (other,) = [words for words in printed if "daily" in words]
    assert "–" in other
    assert "% a year" in text
