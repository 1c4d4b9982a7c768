"""`benchmarks/learning.py`: its markets have the answers that it takes for known, and its tables say what rows say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import finflow
from benchmarks import learning
from benchmarks.learning import (
    MARKETS,
    WARM_UP,
    Case,
    FreshPaths,
    figures,
    hold,
    line_of,
    live,
    ols_on,
    oracle_on,
    row_of,
    run_case,
)
from benchmarks.learning_tables import daily_file, gains, paired_t, speed, table
from finflow.data.build import build_market
from finflow.data.market import Market, Window
from finflow.evaluation.backtest import backtest, equal_weight_track
from finflow.evaluation.linear_tilt import planted_signal, tilt
from finflow.evaluation.result import Track
from finflow.schema import Config
from finflow.stages.prepare import Prepared, fit, load_market, use_hardware

DAYS = Window(260, 2780)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Configuration and data of a market by name, IC .1, each prepared once."""
    root, found = tmp_path_factory.mktemp("learning"), dict[str, tuple[Config, Prepared]]()

    def of(market: str) -> tuple[Config, Prepared]:
        if market not in found:
            case = Case(market, 0.0 if market == "null" else 0.1, 3, 1.0)
            config = finflow.load("pretrain", line_of(case, "ols", root / market, []))
            found[market] = config, fit(config, load_market(config), use_hardware(config.hardware))
        return found[market]

    return of


def alone(market: Market) -> FreshPaths:
    return FreshPaths([market], market)


def over_equal_weight(config: Config, prepared: Prepared, on: learning.StrategyOn) -> dict[str, float]:
    """Figures over ten years, most of which nothing was chosen on."""
    track = backtest(prepared.market, DAYS, prepared.accounting, {"one": on(alone(prepared.market))})["one"]
    return figures(track, equal_weight_track(prepared.market, DAYS, prepared.accounting))


@pytest.mark.parametrize(
    ("market", "least", "most"), [("linear", 0.9, 1.1), ("nonlinear", -1, 0.3), ("regime", -1, 0.5)]
)
def test_the_oracle_earns_after_costs_and_a_regression_where_it_can(
    market: str, least: float, most: float, start: Any
) -> None:
    config, prepared = start(market)
    oracle = over_equal_weight(config, prepared, oracle_on(config, prepared))
    assert oracle["policy"] > 2
    assert oracle["te"] > 0.01
    assert least < over_equal_weight(config, prepared, ols_on(prepared))["policy"] / oracle["policy"] < most


@pytest.mark.parametrize("frequency", ["daily", "monthly"])
def test_paths_side_by_side_are_those_of_a_backtest_each(start: Any, frequency: str) -> None:
    config, prepared = start("linear")
    env = config.env.model_copy(update={"rebalance": frequency})
    synthetic = env.synthetic.model_copy(update={"days": 700})
    markets = [
        build_market(env.model_copy(update={"synthetic": synthetic.model_copy(update={"seed": seed})}))
        for seed in (4, 5)
    ]
    on, paths = ols_on(prepared), FreshPaths.of(markets)
    together = live(paths, prepared.accounting, on(paths))
    for number, market in enumerate(markets):
        window = Window(WARM_UP, len(market.dates))
        track = backtest(market, window, prepared.accounting, {"one": on(alone(market))})["one"]
        np.testing.assert_array_equal(together.net[number], track.net)
        np.testing.assert_array_equal(together.gross[number], track.gross)
        np.testing.assert_array_equal(together.turnover[number], track.turnover)


def test_where_trading_costs_too_much_no_tilt_earns_and_the_oracle_holds(start: Any) -> None:
    config, prepared = start("costly")
    market: Market = prepared.market
    signal = planted_signal(market)
    tilts = {f"{k} {rate}": tilt(market, signal, k, rate) for k in (0.0, 0.25, 1.0) for rate in (0.05, 0.2, 1.0)}
    nets = {name: track.net for name, track in backtest(market, DAYS, prepared.accounting, tilts).items()}
    for name, net in nets.items():
        strength, rate = name.split()
        assert strength == "0.0" or paired_t(net - nets[f"0.0 {rate}"]) < -5, name
    assert oracle_on(config, prepared) is hold
    assert over_equal_weight(config, prepared, hold)["te"] < 1e-12


def test_the_costs_are_what_makes_it_hold(start: Any) -> None:
    config, prepared = start("costly")
    free = prepared.accounting.__class__(cost_rate=0.0)
    assert oracle_on(config, prepared.__class__(**{**vars(prepared), "accounting": free})) is not hold


def test_nothing_is_planted_in_the_null_market(start: Any) -> None:
    config, prepared = start("null")
    assert "signal:planted" not in prepared.market.feature_names
    assert oracle_on(config, prepared) is hold


def test_runs_differ_from_what_a_user_gets_by_budget_and_size_alone() -> None:
    allowed = (
        "env", "budget", "algo.network", "algo.batch_size", "tracking", "seed", "output_root", "evaluation.every",
    )  # fmt: skip
    for learner, known in learning.LEARNERS.items():
        for text in line_of(Case("linear", 0.1, 0, 1.0), learner, Path("out"), []):
            assert text in known.changes or text.startswith(allowed), text


def test_a_smaller_budget_is_shorter_and_collects_as_much() -> None:
    whole, half = (line_of(Case("linear", 0.1, 0, part), "bcell", Path("out"), []) for part in (1.0, 0.5))
    changed = {text.split("=")[0] for text in set(whole) ^ set(half)}
    assert changed == {"budget.updates_per_epoch", "budget.episodes", "budget.critic_warmup_updates"}
    assert "budget.episodes=48" in half


def track_of(net: NDArray[np.float64], turnover: float = 0.0) -> Track:
    days, zero = len(net), np.zeros((len(net), 2))
    dates = np.arange(days).astype("datetime64[D]")
    return Track("one", dates, zero, zero, np.full(days, turnover), np.zeros(days), net + 1e-4, net, 0)


def test_figures_by_hand() -> None:
    equal = track_of(np.tile([0.01, -0.02], 126))
    mine = track_of(equal.net + np.tile([0.003, -0.001], 126), turnover=0.02)
    found = figures(mine, equal)
    assert found["te"] == pytest.approx(0.002 * np.sqrt(252 / 251) * np.sqrt(252))
    assert found["policy"] == pytest.approx(0.001 / (0.002 * np.sqrt(252 / 251)) * np.sqrt(252))
    assert found["turnover"] == pytest.approx(0.02 * 252)


def row(learner: str, seed: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "market": "linear", "ic": 0.1, "budget": 1.0, "policy": 2.0, "share": 0.5, "gross": 2.1, "te": 0.02,
        "turnover": 4.0, "train_seconds": 10.0, "updates": 100, "changes": [],
    }  # fmt: skip
    made = {"learner": learner, "seed": seed} | usual | changes
    return {**made, "paths": {"policy": [made["policy"]] * 2, "te": [made["te"]] * 2}}


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_a_table_tells_markets_apart_and_says_the_worst_seed() -> None:
    shares = (0.1, 0.8, 0.8, 0.9)
    rows = [row("oracle", seed, share=None, gross=3.0) for seed in range(4)]
    rows += [row("iql", seed, share=share, gross=1.5) for seed, share in enumerate(shares)]
    rows += [row("iql", 0, market="null", ic=0.0, share=None, policy=-0.1, kappa=0.2)]
    rows += [row("iql", 1, market="null", ic=0.0, share=None, policy=-0.1, kappa=0.4)]
    heads, _, _, linear, null = cells(table(rows))
    found = dict(zip(heads, linear, strict=True))
    assert found["share of the oracle's"].startswith("0.80 [")
    assert found["worst share"] == "0.10"
    assert found["TE a year"] == "2.0%"
    assert found["gross share"] == "0.50 [0.50, 0.50]"
    assert found["kappa"] == "-"
    found = dict(zip(heads, null, strict=True))
    assert (found["market"], found["share of the oracle's"], found["worst share"]) == ("null", "-", "-")
    assert found["kappa"] == "0.30 (1 at most 0.25, 0 at least 0.75)"


def test_a_share_without_a_tracking_error_is_flagged() -> None:
    fine, small = [row("iql", 0), row("iql", 1)], [row("sac", 0), row("sac", 1, te=0.0099)]
    fine += [row("oracle", seed, share=None) for seed in (0, 1)]
    said = table([*fine, *small])
    heads, _, first, _, second = cells(said)
    share, te = heads.index("share of the oracle's"), heads.index("TE a year")
    assert "†" not in first[share]
    assert second[share].endswith("†")
    assert second[te].endswith("(1 small)")
    assert "does not count" in said
    assert "does not count" not in table(fine)


def test_paired_errors_by_hand() -> None:
    assert paired_t(np.array([1.0, 3.0])) == pytest.approx(2.0)
    assert paired_t(np.zeros(3)) == 0.0
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(10_000)
    assert paired_t((shared + 0.1 * rng.standard_normal(10_000) + 0.01) - shared) == pytest.approx(10, abs=3)


def test_the_pipeline_is_compared_day_by_day_with_each_other_on_the_same_paths(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(1), list[dict[str, Any]]()
    for seed, better in enumerate((0.001, -0.001, 0.002, 0.0)):
        nets = rng.normal(0, 0.01, (2, 500))
        rows += [row("iql", seed, policy=1.0), row("bcell", seed, policy=1.0 + 100 * better)]
        noise = np.tile([0.0001, -0.0001], 500).reshape(2, 500)
        for made, daily in ((rows[-2], nets), (rows[-1], nets + better + noise)):
            daily_file(tmp_path, made).parent.mkdir(exist_ok=True)
            np.save(daily_file(tmp_path, made), daily)
    heads, _, only = cells(gains([*rows, row("bcell", 9)], tmp_path))  # of seed 9 there is no parent
    found = dict(zip(heads, only, strict=True))
    assert found["bcell less"] == "iql"
    assert found["seeds"] == "4"
    assert found["net return a year"] == f"{252 * 0.002 / 4:.2%}"
    assert found["seeds behind"] == "1"
    error = 0.0001 * np.sqrt(1000 / 999) / np.sqrt(1000)
    assert float(found["worst seed's t"]) == pytest.approx(-0.001 / error, abs=0.06)
    assert found["net active IR"].startswith("0.05 [")
    assert gains([row("bcell", 0)], tmp_path) == ""


def test_how_soon_counts_the_parent_from_nothing() -> None:
    rows = list[dict[str, Any]]()
    for budget, phase_1, both in ((0.25, 0.5, 1.7), (0.5, 0.8, 1.85), (1.0, 1.0, 2.0)):
        rows += [row("iql", 0, budget=budget, policy=phase_1, train_seconds=40 * budget)]
        rows += [row("bcell", 0, budget=budget, policy=both, train_seconds=100 * budget)]
    heads, _, iql, bcell = cells(speed(rows, {"bcell": "iql", "iql": None}))
    at = heads.index("CPU-seconds to 90% of its own")
    assert (iql[at], bcell[at]) == ("40", "70")
    assert bcell[heads.index("whole")] == "140"
    assert speed([each for each in rows if each["budget"] == 1], {}) == ""
    whole = cells(table([*rows, row("oracle", 0, share=None)]))[2:]
    assert [each[3] for each in whole] == ["1", "1", "1"], "a part of the budget is none of the table's"


def test_rows_are_made_once_the_oracles_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[tuple[str, float | None]]()

    def made(case: Case, learner: str, oracle: float | None, *_: object) -> dict[str, Any]:
        asked.append((learner, oracle))
        return row(learner, case.seed, policy=4.0 if learner == "oracle" else 1.0)

    monkeypatch.setattr(learning, "row_of", made)
    case = Case("linear", 0.1, 5, 1.0)
    run_case(case, ["ols"], tmp_path, [])
    run_case(case, ["ols", "iql"], tmp_path, [])
    assert asked == [("oracle", None), ("ols", 4.0), ("iql", 4.0)]
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "linear-ic0.1-seed5 ols: net active IR 1.00, share 0.50, TE 2.0%, 10 CPU-seconds"
    run_case(Case("linear", 0.1, 6, 1.0), [], tmp_path, [])
    assert len(asked) == 4, "of another seed"
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4
    with pytest.raises(SystemExit, match="rows of other settings; name another --out"):
        run_case(case, [], tmp_path, ["algo.lr=1e-3"])
    (tmp_path / "rows.jsonl").write_text(json.dumps({"learner": "iql", "ic": 0.1, "seed": 0}) + "\n")
    with pytest.raises(SystemExit, match="name another --out"):
        run_case(case, [], tmp_path, [])


def test_a_row_holds_what_the_fresh_paths_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "PATHS", 2)
    monkeypatch.setattr(learning, "YEARS", 4)
    case = Case("linear", 0.1, 3, 1.0)
    oracle = row_of(case, "oracle", None, tmp_path, [])
    found = row_of(case, "ols", oracle["policy"], tmp_path, [])
    assert oracle["share"] is None
    assert found["share"] == found["policy"] / oracle["policy"]
    assert 0.5 < found["share"] < 1.2
    daily = np.load(daily_file(tmp_path, found))
    assert daily.shape == (2, 4 * 252)
    assert not np.array_equal(daily, np.load(daily_file(tmp_path, oracle)))
    assert np.corrcoef(daily[0], daily[1])[0, 1] < 0.2, "paths of their own"
    assert set(MARKETS) == {"linear", "nonlinear", "regime", "costly", "null"}
