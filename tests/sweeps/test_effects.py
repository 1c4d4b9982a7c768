"""What a parameter does: known answers on full and broken grids."""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.testing import assert_allclose

from finflow.sweeps.leaderboard import effects_of, pairs_of
from finflow.sweeps.table import Row

SWEPT = {"a": ("1", "2", "3"), "b": ("x", "y")}
Score = Callable[[str, str], float | None]


def rows(score: Score, swept: Mapping[str, tuple[str, ...]] = SWEPT) -> list[Row]:
    found: list[Row] = []
    for a, b in itertools.product(swept["a"], swept["b"]):
        value = score(a, b)
        figures = {} if value is None else {"s": value}
        found.append(Row(f"{a}{b}", {"a": a, "b": b}, "finished", "", figures, None, None))
    return found


def test_shares_of_an_additive_score_add_up() -> None:
    effects = effects_of(rows(lambda a, b: float(a) + (3.0 if b == "y" else 0.0)), SWEPT, "s")
    # Variance of 1, 2, 3 is 2/3, of 0, 3 is 9/4: shares 8/35 and 27/35.
    assert [effect.key for effect in effects] == ["b", "a"]
    assert_allclose([effect.share for effect in effects], [27 / 35, 8 / 35], rtol=1e-12)
    assert_allclose(effects[1].means, [2.5, 3.5, 4.5])
    assert_allclose([effect.chance for effect in effects], [1 / 5, 2 / 5])
    (pair,) = pairs_of(rows(lambda a, b: float(a) + (3.0 if b == "y" else 0.0)), effects, "s")
    assert_allclose(pair.share, 0.0, atol=1e-12)
    assert_allclose(pair.means, [[1, 2, 3], [4, 5, 6]])
    assert pair.chance == 2 / 5


def test_an_interaction_is_seen_where_no_parameter_alone_matters() -> None:
    swept = {"a": ("0", "1"), "b": ("0", "1")}
    crossed = rows(lambda a, b: float(a != b), swept)
    effects = effects_of(crossed, swept, "s")
    assert_allclose([effect.share for effect in effects], [0.0, 0.0], atol=1e-12)
    assert pairs_of(crossed, effects, "s")[0].share == 1.0


def test_missing_jobs_leave_holes_and_no_nan_in_what_is_known() -> None:
    holed = rows(lambda a, b: None if a == "2" or (a, b) == ("1", "x") else float(a))
    effects = effects_of(holed, SWEPT, "s")
    by_key = {effect.key: effect for effect in effects}
    assert_allclose(by_key["a"].means, [1.0, np.nan, 3.0])
    assert by_key["a"].share == 1.0
    assert by_key["a"].chance == 1 / 2
    assert_allclose(pairs_of(holed, effects, "s")[0].means, [[np.nan, 1.0], [np.nan, np.nan], [3.0, 3.0]])


@pytest.mark.parametrize("score", [lambda a, b: 1.0, lambda a, b: None, lambda a, b: 1.0 if a + b == "1x" else None])
def test_without_differences_there_is_no_share(score: Score) -> None:
    assert all(np.isnan(effect.share) for effect in effects_of(rows(score), SWEPT, "s"))
