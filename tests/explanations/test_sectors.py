"""Allocation and selection by sector: by hand, without a residual, and only of sectors that a file gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finflow.data.series import read_sectors
from finflow.errors import DataError
from finflow.evaluation.backtest import Plan, backtest
from finflow.explanations.decision_trace import DecisionTrace
from finflow.explanations.performance import active_parts

from .conftest import MakeScene

SECTORS = ("tech", "tech", "energy", "energy", "energy", "staples", "staples", "staples")


def benchmark(scene: DecisionTrace) -> float:
    """Growth of 1/N by the market's own series, which the environment and every verdict use."""
    return float(np.prod(1.0 + scene.subject.market.benchmark[scene.rows + 1]))


def test_parts_sum_to_the_active_return(scene: DecisionTrace, make_track_scene: MakeScene) -> None:
    second = make_track_scene(window="train")
    for windows in ([scene], [scene, second]):
        found = active_parts(windows, SECTORS)
        nav = np.prod([one.track.nav[-1] for one in windows])
        active = nav - np.prod([benchmark(one) for one in windows])
        assert found.active == pytest.approx(active, abs=1e-10)
        assert sum(one.total for one in found.sectors) - found.cost == pytest.approx(active, abs=1e-10)
        assert found.cost > 0
        for field in ("weight", "benchmark"):
            assert sum(getattr(one, field) for one in found.sectors) == pytest.approx(1.0, abs=1e-12)
    assert [one.sector for one in found.sectors] == ["tech", "energy", "staples", "CASH"]


def test_one_day_by_hand(scene: DecisionTrace) -> None:
    day = replace(scene, rows=scene.rows[4:5], track=replace(scene.track, **{
        name: getattr(scene.track, name)[4:5] for name in ("weights", "drifted", "turnover", "cost", "gross", "net")
    }))  # fmt: skip
    found = {one.sector: one for one in active_parts([day], SECTORS).sectors}
    weights, returns = day.track.weights[0], scene.subject.market.returns[day.rows[0] + 1]
    whole = returns[:8].mean()
    energy = returns[2:5].mean()
    assert found["energy"].benchmark == pytest.approx(3 / 8)
    allocation = (weights[2:5].sum() - 3 / 8) * (energy - whole)
    assert found["energy"].allocation == pytest.approx(allocation, abs=1e-15)
    assert found["energy"].selection == pytest.approx(weights[2:5] @ (returns[2:5] - energy), abs=1e-15)
    assert found["CASH"].allocation == pytest.approx(weights[-1] * (returns[-1] - whole), abs=1e-15)
    assert found["CASH"].selection == pytest.approx(0.0, abs=1e-15)


def test_equal_within_sectors_has_no_selection(scene: DecisionTrace) -> None:
    """Half of each sector's names' equal weight moved to another sector: allocation is all there is."""
    market = scene.subject.market
    wanted = np.array([0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0])
    plan = Plan(np.tile(wanted, (len(market.dates), 1)), np.ones(len(market.dates), dtype=bool))
    free = replace(scene.subject.world.accounting, cost_rate=0.0)
    track = backtest(market, scene.window, free, {"policy": plan})["policy"]
    found = active_parts([replace(scene, track=track)], SECTORS)
    assert max(abs(one.selection) for one in found.sectors) < 1e-12
    assert max(abs(one.allocation) for one in found.sectors) > 1e-4
    assert found.cost == 0.0


def test_names_in_one_sector_are_all_selection(scene: DecisionTrace) -> None:
    found = active_parts([scene], ("all",) * 8)
    whole, cash = found.sectors
    assert abs(whole.allocation) < 1e-3 * abs(whole.selection)  # a little cash is all that is weighted otherwise
    assert whole.selection != 0.0
    assert cash.selection == pytest.approx(0.0, abs=1e-15)


def test_a_file_gives_them_in_the_order_of_the_names(tmp_path: Path) -> None:
    path = tmp_path / "sectors.csv"
    path.write_text('ticker,sector\nXOM,energy\nKO,"food, drink"\nIBM,tech\n')
    assert read_sectors(path, ["KO", "XOM"]) == ("food, drink", "energy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,sector\nKO,food\n", ":1:1: the header is name,sector; write ticker,sector"),
        ("ticker,sector\nKO,food\nKO,food\n", ":3:ticker: KO stands twice; keep one row"),
        ("ticker,sector\nKO,\n", ":2:sector: blank; name it"),
        ("ticker,sector\nKO,food,drink\n", ":2:1: 3 cells; write a ticker and its sector"),
        ("ticker,sector\nKO,Cash\n", ":2:sector: Cash is what cash is called"),
        ("ticker,sector\nIBM,tech\n", ": no sector for KO, XOM; add a row for each"),
        ("", ":1:1: the file is empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sectors.csv"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        read_sectors(path, ["KO", "XOM"])
    assert str(refused.value).startswith(f"{path}{said}")
