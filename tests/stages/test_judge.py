"""Strategies from outside: 1/N in each form gets the figures of the baseline 1/N, and what is wrong is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import finflow
from finflow.errors import AuditError, ConfigError, DataError, FinFlowError
from finflow.evaluation.strategies import History
from finflow.evaluation.test_window_log import FILE_NAME
from finflow.schema import Config
from finflow.stages.results import EvaluateResult

DAYS = 1400
NAMES = ["A", "B", "C", "LATE"]


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four names; the last can be traded from the middle of the test window on."""
    path = tmp_path_factory.mktemp("judge") / "prices.csv"
    steps = np.random.default_rng(3).normal(0.0003, 0.01, (DAYS, 4))
    table = pd.DataFrame(50 * np.exp(np.cumsum(steps, axis=0)), columns=NAMES).round(4)
    table.index = pd.Index(pd.bdate_range("2015-01-05", periods=DAYS).strftime("%Y-%m-%d"), name="date")
    table.iloc[: DAYS - 350, 3] = np.nan
    table.to_csv(path)
    return path


def settings(prices: Path, root: Path, *more: str) -> Config:
    few = "evaluation.bootstrap_samples=200"
    return finflow.load("judge", ["env=csv", f"env.path='{prices}'", f"output_root='{root}'", few, *more])


def equal(history: History) -> Any:
    chosen = history.tradable.astype(float)
    chosen[-1] = 0.0
    return chosen / chosen.sum()


class Equal:
    """1/N as a model: what can be traded cannot be read from an observation, so it is told."""

    def __init__(self, decided: pd.DataFrame) -> None:
        self.scores = iter(decided.to_numpy())

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[Any, None]:
        assert deterministic
        assert observation.shape == observation.ravel().shape
        return 3.0 * next(self.scores), None


@pytest.fixture(scope="module")
def judged(prices: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluateResult, pd.DataFrame]:
    """1/N as a function, and what it asked for by the day of the decision, each day once."""
    asked: list[tuple[str, Any]] = []

    def noting(history: History) -> Any:
        asked.append((str(history.dates[-1]), equal(history)))
        return asked[-1][1]

    result = finflow.judge(noting, name="mine", config=settings(prices, tmp_path_factory.mktemp("out")))
    table = pd.DataFrame([weights for _, weights in asked], columns=[*NAMES, "CASH"])
    table.index = pd.Index([day for day, _ in asked], name="date")
    return result, table


def once(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table.index.duplicated()].sort_index()


def test_one_over_n_as_a_function_is_the_baseline(judged: tuple[EvaluateResult, pd.DataFrame]) -> None:
    found = judged[0].evaluation
    assert found.metrics["policy"] == found.metrics["1/N daily"]
    assert found.verdict.difference == found.scrutiny.comparisons[0].difference
    assert any(line.startswith("collapsed to 1/N daily: tracking error 0.00 %") for line in found.warnings)
    assert (found.expert_names, found.gate.shape[1], found.scrutiny.reality, found.scrutiny.gate) == ((), 0, (), None)
    assert found.scrutiny.lagged is not None
    assert found.scaled_verdict is not None
    assert found.scaled_verdict.scale == 1.0


@pytest.mark.parametrize("form", ["weights", "weights of the test window", "weights without cash", "returns", "model"])
def test_one_over_n_in_any_form_is_the_baseline(
    form: str, prices: Path, judged: tuple[EvaluateResult, pd.DataFrame], tmp_path: Path
) -> None:
    first, table = judged
    expected, strategy, more = first.evaluation.metrics["1/N daily"], None, [f"weights='{tmp_path}/w.csv'"]
    if form == "returns":
        pd.read_csv(first.run_dir / "returns.csv")[["date", "1/N daily"]].to_csv(tmp_path / "r.csv", index=False)
        more = [f"returns='{tmp_path}/r.csv'"]
    elif form == "model":
        strategy, more = Equal(table), []
    else:
        own = once(table)
        day = str(pd.Timestamp(str(first.evaluation.policy.dates[0])) - pd.tseries.offsets.BDay())[:10]
        own = own[own.index >= day] if "window" in form else own
        (own.drop(columns="CASH") if "without" in form else own).to_csv(tmp_path / "w.csv")
    found = finflow.judge(strategy, config=settings(prices, tmp_path / "out", *more)).evaluation
    if form == "returns":
        expected = replace(expected, turnover=None, effective_assets=None)
        assert (found.costs, found.break_even_bps, found.scrutiny.lagged) == ([], None, None)
        assert any(line.startswith("the returns are taken as given") for line in found.warnings)
    assert found.metrics["policy"] == expected
    assert found.verdict == first.evaluation.verdict
    assert (found.scaled_verdict is None) == (form in ("returns", "weights of the test window"))


def test_blank_rows_hold(prices: Path, judged: tuple[EvaluateResult, pd.DataFrame], tmp_path: Path) -> None:
    first, table = judged
    own = once(table)
    days = own.index[-len(first.evaluation.policy.dates) :]
    own.loc[days[1:]] = np.nan
    own.loc[days].to_csv(tmp_path / "w.csv")
    found = finflow.judge(config=settings(prices, tmp_path / "out", f"weights='{tmp_path}/w.csv'")).evaluation
    np.testing.assert_allclose(found.policy.net, found.baselines["buy and hold"].net, rtol=0, atol=1e-15)
    own.loc[days].iloc[1:].to_csv(tmp_path / "w.csv")
    with pytest.raises(DataError, match=rf"1 of the \d+ decision days .*\({days[0]}\)"):
        finflow.judge(config=settings(prices, tmp_path / "out", f"weights='{tmp_path}/w.csv'"))


def test_an_opening_is_counted_once_a_judgement_and_by_the_chain_of_evaluate(prices: Path, tmp_path: Path) -> None:
    config = settings(prices, tmp_path)
    for count in (1, 2):
        result = finflow.judge(equal, name="mine", config=config)
        lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
        assert result.evaluation.window_opened == len(lines) == count
        record = json.loads((result.run_dir / "run.json").read_text())
        assert record["test_ledger_head"] == lines[-1]["hash"]
        assert lines[-1]["fingerprint"] == record["data_fingerprint"]
        assert lines[-1]["run"] == f"mine/{result.run_dir.name}"
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(AuditError, match="is gone"):
        finflow.judge(equal, name="mine", config=config)


def test_a_window_is_the_same_however_often_a_strategy_decides(prices: Path, tmp_path: Path) -> None:
    counts = [
        finflow.judge(equal, config=settings(prices, tmp_path, f"env.rebalance={often}")).evaluation.window_opened
        for often in ("daily", "weekly", "monthly")
    ]
    assert counts == [1, 2, 3]


def test_a_folder_that_holds_something_opens_no_window(prices: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/weights.csv").touch()
    with pytest.raises(ConfigError, match="used: not empty; name a new folder"):
        finflow.judge(equal, config=settings(prices, tmp_path / "out"), run_dir=tmp_path / "used")
    assert not (tmp_path / "out" / FILE_NAME).exists()


def test_ruin_is_reported(prices: Path, judged: tuple[EvaluateResult, pd.DataFrame], tmp_path: Path) -> None:
    policy = judged[0].evaluation.policy
    net = np.where(np.arange(len(policy.net)) == 30, -1.0, 0.0)
    days = pd.Index([str(day) for day in policy.dates], name="date")
    pd.DataFrame({"r": net}, index=days).to_csv(tmp_path / "r.csv")
    result = finflow.judge(config=settings(prices, tmp_path / "out", f"returns='{tmp_path}/r.csv'"))
    assert result.evaluation.metrics["policy"].final_nav == 0.0
    assert result.report.exists()


@pytest.mark.parametrize("strategy", [type("Ridge", (), {"predict": lambda self, x: x})(), dict, 3])
def test_what_answers_in_another_way_is_refused(strategy: Any, prices: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"can neither be called with a history, nor does it have predict"):
        finflow.judge(strategy, config=settings(prices, tmp_path))


def test_the_report_leaves_out_what_is_not_known(
    prices: Path, judged: tuple[EvaluateResult, pd.DataFrame], tmp_path: Path
) -> None:
    first, _ = judged
    page = first.report.read_text()
    assert "judge / mine" in page
    for part in ("s-weights", "s-holdings", "s-trading", "s-costs", "s-metrics", "s-sure"):
        assert f'id="{part}"' in page, part
        assert f'href="#{part}"' in page, part
    for part in ("s-gate", "s-experts", "s-training", "s-reality"):
        assert part not in page
    pd.read_csv(first.run_dir / "returns.csv")[["date", "1/N daily"]].to_csv(tmp_path / "r.csv", index=False)
    given = finflow.judge(config=settings(prices, tmp_path / "out", f"returns='{tmp_path}/r.csv'"))
    page = given.report.read_text()
    for part in ("s-gate", "s-experts", "s-weights", "s-holdings", "s-trading", "s-costs", "of lag", "Scaled to"):
        assert part not in page
    assert {path.name for path in first.run_dir.iterdir()} - {path.name for path in given.run_dir.iterdir()} == {
        "weights.csv",
        "ledger.csv",
    }


def short(history: History) -> Any:
    return np.array([1.2, -0.2, 0.0, 0.0, 0.0])


def peeking(history: History) -> Any:
    today = len(history.dates) - 1
    return np.eye(5)[int(np.argmax(history.returns[today + 1]))]


WRONG_STRATEGIES: dict[str, tuple[Callable[[History], Any], str]] = {
    "short": (short, r"B: weight -0\.2 is short; portfolios are long-only"),
    "borrowed": (lambda h: 2 * equal(h), r"weights sum to 2, more than there is"),
    "left over": (lambda h: equal(h) / 2, r"weights sum to 0\.5; make them sum to 1, what is left over in CASH"),
    "nan": (lambda h: equal(h) * np.nan, r"A: weight is not finite; return numbers"),
    "without cash": (lambda h: equal(h)[:-1], r"an answer of shape \(4,\); return 5 weights"),
    "text": (lambda h: "buy", r"'buy' is no array of numbers"),
}


@pytest.mark.parametrize("wrong", WRONG_STRATEGIES)
def test_a_strategy_that_asks_for_no_portfolio_opens_no_window(wrong: str, prices: Path, tmp_path: Path) -> None:
    strategy, message = WRONG_STRATEGIES[wrong]
    with pytest.raises(DataError, match=message):
        finflow.judge(strategy, config=settings(prices, tmp_path))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_a_strategy_that_peeks_finds_nothing(prices: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        finflow.judge(peeking, config=settings(prices, tmp_path))
    assert not (tmp_path / FILE_NAME).exists()


def test_a_model_of_another_environment_is_refused(prices: Path, tmp_path: Path) -> None:
    class Other:
        observation_space = np.zeros(7)

        def predict(self, observation: Any, deterministic: bool) -> Any:
            raise AssertionError

    with pytest.raises(
        DataError, match=r"observes \(7,\), this market shows \(\d+,\); judge a model with the settings"
    ):
        finflow.judge(Other(), config=settings(prices, tmp_path))
    with pytest.raises(DataError, match="a float can neither be called"):
        finflow.judge(1.0, config=settings(prices, tmp_path))  # pyright: ignore[reportArgumentType]


def without(table: pd.DataFrame, day: str) -> pd.DataFrame:
    return table.drop(index=day)


FIRST, LATER, SATURDAY = "2019-08-06", "2020-01-15", "2020-01-18"
WRONG_WEIGHTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], list[str], str]] = {
    "a missing day": (lambda t: without(t, LATER), [], rf"1 of the \d+ decision days .* no row \({LATER}\); add them"),
    "a day too many": (lambda t: t, ["env.rebalance=weekly"], r"is no decision day of env.rebalance=weekly; remove"),
    "a Saturday": (
        lambda t: pd.concat([t, t.loc[[LATER]].rename(index={LATER: SATURDAY})]).sort_index(),
        [],
        rf"w.csv:\d+:date: {SATURDAY} is no decision day of env.rebalance=daily; remove the row$",
    ),
    "an unknown ticker": (lambda t: t.rename(columns={"B": "X"}), [], r"w.csv:1:X: not a name of this market \(A, B"),
    "a blank weight": (lambda t: t.assign(B=t.B.where(t.index != LATER)), [], r":B: a blank weight; give a number"),
    "a short weight": (lambda t: t.assign(B=-t.B), [], r"w.csv:\d+, B: weight -0\.\d+ is short"),
    "infinity": (lambda t: t * np.inf, [], r":A: 'inf' is not a number; .* leave the whole row blank to hold$"),
    "borrowed": (lambda t: 2 * t, [], r"w.csv:\d+: weights sum to 2, more than there is"),
    "something over": (lambda t: t / 2, [], r"w.csv:\d+: weights sum to 0\.5; make them sum to 1"),
}


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_open_no_window(
    wrong: str, prices: Path, judged: tuple[EvaluateResult, pd.DataFrame], tmp_path: Path
) -> None:
    change, more, message = WRONG_WEIGHTS[wrong]
    change(once(judged[1])).to_csv(tmp_path / "w.csv")
    with pytest.raises(DataError, match=message) as refused:
        finflow.judge(config=settings(prices, tmp_path / "out", f"weights='{tmp_path}/w.csv'", *more))
    assert str(refused.value).startswith(f"weights={tmp_path}/w.csv")
    assert not (tmp_path / "out" / FILE_NAME).exists()


WRONG_RETURNS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "too short": (lambda t: t.iloc[5:], r"5 of the \d+ days of the test window have no row .*, \.\.\.\); add them"),
    "a blank": (lambda t: t.assign(r=t.r.where(t.index != LATER)), r":r: a blank return; give a number"),
    "infinity": (lambda t: t.assign(r=np.inf), r":r: 'inf' is not a number; write 1 % as 0.01$"),
    "a total loss": (lambda t: t.assign(r=-2.0), r"a loss of more than everything; write 1 % as 0.01"),
    "percents": (lambda t: t.assign(r=12.5), r"a gain of more than 1000 % on one day; write 1 % as 0.01"),
    "two columns": (lambda t: t.assign(other=t.r), r"r.csv:1:other: a second column of returns"),
}


@pytest.mark.parametrize("wrong", WRONG_RETURNS)
def test_returns_that_do_not_fit_open_no_window(
    wrong: str, prices: Path, judged: tuple[EvaluateResult, pd.DataFrame], tmp_path: Path
) -> None:
    change, message = WRONG_RETURNS[wrong]
    policy = judged[0].evaluation.policy
    change(pd.DataFrame({"r": policy.net}, index=pd.Index([str(day) for day in policy.dates], name="date"))).to_csv(
        tmp_path / "r.csv"
    )
    with pytest.raises(DataError, match=message):
        finflow.judge(config=settings(prices, tmp_path / "out", f"returns='{tmp_path}/r.csv'"))
    assert not (tmp_path / "out" / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("strategy", "name", "words", "message"),
    [
        (None, None, [], "weights, returns: neither is given; name a file"),
        (equal, None, ["returns=r.csv"], "strategy and returns: one strategy is judged at a time"),
        (None, None, ["returns=r.csv", "weights=w.csv"], "weights and returns: one strategy"),
        (equal, "a/b", [], "name=a/b: should be a name of letters"),
        (None, None, ["weights=none.csv"], "weights=none.csv: no such file; check the path"),
    ],
)
def test_what_is_judged_is_one_strategy_with_a_name(
    strategy: Any, name: str | None, words: list[str], message: str, prices: Path, tmp_path: Path
) -> None:
    with pytest.raises(FinFlowError, match=message):
        finflow.judge(strategy, name=name, config=settings(prices, tmp_path, *words))
    with pytest.raises(ConfigError, match="config: made for look"):
        finflow.judge(equal, config=finflow.load("look"))
