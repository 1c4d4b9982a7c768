"""The comparison itself: to the bit, the first date of each subject, and futures that really differ."""

import numpy as np
import pytest

from finflow.data.prices import Prices
from finflow.evaluation.audit.findings import Difference, Findings, Watched, first_differences
from finflow.evaluation.audit.leakage import scaled_text
from finflow.evaluation.audit.lookahead import FIRST, LAST, spread_rows
from finflow.evaluation.audit.perturbations import CHANGES, HORIZON, changed, noise_after
from finflow.stages.results import AuditResult

DAYS, T = 900, 400


@pytest.fixture(scope="module")
def prices() -> Prices:
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((DAYS, 3)), axis=0))
    close[:50, 0] = np.nan
    dates = np.arange(np.datetime64("2010-01-01"), np.datetime64("2010-01-01") + DAYS)
    signals = {"mine": rng.standard_normal((DAYS, 3))}
    return Prices(dates, ("A", "B", "C"), close, volume=np.exp(close / 100), signals=signals)


def test_first_difference_of_each_subject_by_hand() -> None:
    before = np.zeros((6, 2, 3), dtype=np.float32)
    before[1, 0, 0] = np.nan
    after = before.copy()
    after[4, 1, 2] = 1e-45
    after[2, 0, 2] = -0.0
    after[5, :, 1] = 7.0
    watched = Watched("features", before, "feature", ("a", "b", "c"))
    assert first_differences(watched, after, 6) == {1: 5, 2: 2}, "NaN is itself, -0 is not 0"
    assert first_differences(watched, after, 5) == {2: 2}
    assert first_differences(watched, after, 2) == {}
    by_name = Watched("priors", before, "prior", ("x", "y"), axis=1)
    assert first_differences(by_name, after, 6) == {0: 2, 1: 4}
    whole = Watched("regime labels", before[:, 0, 2], "regime label")
    assert first_differences(whole, after[:, 0, 2], 6) == {0: 2}
    assert first_differences(whole, after[:3, 0, 2], 6) == {0: 0}, "rows that are gone are no past"


def test_the_earliest_date_of_a_subject_stays() -> None:
    dates = np.arange(np.datetime64("2020-01-01"), np.datetime64("2020-01-07"))
    before = np.zeros((6, 2))
    late, early = before.copy(), before.copy()
    late[4, 0], early[1, 0] = 1, 1
    findings, watched = Findings(), Watched("features", before, "feature", ("a", "b"))
    for after, cause in ((before, "nothing"), (late, "late"), (early, "early"), (late, "later")):
        findings.compare(watched, after, 6, dates, cause)
    (check,) = findings.checks()
    assert check.comparisons == 4
    assert check.differences == (Difference("feature a", "2020-01-02", "early"),)
    result = AuditResult(run_dir="d", record="d/audit.json", checks=(check,), dates=1, next_command="")
    assert result.line().startswith("Audit: FAILED, feature a on 2020-01-02 changes when early; ")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_leaves_the_past_and_moves_the_rest(name: str, prices: Prices) -> None:
    other = changed(prices, T, name, np.random.default_rng(1), least=0)
    pairs = {
        "close": (prices.close, other.close),
        "volume": (prices.volume, other.volume),
        "mine": (prices.signals["mine"], other.signals["mine"]),
    }
    rows = T + 1 if name == "cut" else T + 1 + HORIZON
    assert len(other.dates) == rows
    for before, after in pairs.values():
        assert before[: T + 1].tobytes() == after[: T + 1].tobytes()
        assert len(after) == rows
        assert not np.isclose(before[T + 1 : rows], after[T + 1 :], rtol=1e-9).all() or name == "cut"
    if name == "blanked":
        assert np.isnan(other.close[T + 1 :]).all()
    if name == "shuffled":
        np.testing.assert_allclose(np.sort(other.close[T + 1 :], 0), np.sort(prices.close[T + 1 : rows], 0), 0, 0)


def test_a_change_keeps_the_rows_that_labels_ask_for(prices: Prices) -> None:
    rng = np.random.default_rng(1)
    assert len(changed(prices, T, "scaled", rng, least=800).dates) == 800
    assert len(changed(prices, T, "scaled", rng, least=2000).dates) == DAYS


def test_noise_has_nothing_of_the_prices_in_it(prices: Prices) -> None:
    doubled = Prices(prices.dates, prices.tickers, np.concatenate([prices.close[: T + 1], 2 * prices.close[T + 1 :]]))
    one, two = (noise_after(p, T, np.random.default_rng(4)).close for p in (prices, doubled))
    assert one.tobytes() == two.tobytes()
    assert one[: T + 1].tobytes() == prices.close[: T + 1].tobytes()
    assert len(one) == DAYS
    np.testing.assert_allclose(np.diff(np.log(one[T + 1 :]), axis=0).std(), 0.02, rtol=0, atol=0.002)


def test_rows_are_spread_over_the_data() -> None:
    rows = spread_rows(1000, 50, np.random.default_rng(0))
    assert len(rows) == 50
    assert rows.min() >= FIRST
    assert rows.max() < 1000 - LAST
    stretch = (1000 - FIRST - LAST) / 50
    assert (np.abs((rows - FIRST) / stretch - np.arange(50) - 0.5) <= 0.5 + 1 / stretch).all(), "one in each stretch"


def test_a_file_is_scaled_after_the_day_alone() -> None:
    text = 'Date,"A, B",C\n2020-01-01,1.5,\n2020-01-02, 2 ,3\n2020-01-03,4,\n'
    lines = scaled_text(text, "2020-01-02", np.random.default_rng(0)).splitlines()
    assert lines[:3] == ['Date,"A, B",C', "2020-01-01,1.5,", "2020-01-02, 2 ,3"]
    day, first, second = lines[3].split(",")
    assert (day, second) == ("2020-01-03", "")
    assert float(first) == pytest.approx(4, rel=0.3)
    assert float(first) != 4
