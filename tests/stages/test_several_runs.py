"""Several runs on one page: seeds averaged, folds end to end, others side by side; the window's openings counted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import finflow
from finflow.cli import commands
from finflow.errors import ConfigError
from finflow.evaluation.metrics import sharpe_ratio
from finflow.stages.loaded_run import load_trained
from finflow.stages.results import DecideResult, EvaluateResult
from finflow.stages.run_groups import Group

from .conftest import TINY, TUNE, move_actor

MARKET = ["env=synthetic", "env.synthetic.days=2000", "env.synthetic.assets=4", *TINY]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


def train(root: Path, *changes: str) -> Path:
    line = [*MARKET, f"output_root={root}", "init.weights=null", *TUNE, *changes]
    return finflow.finetune(finflow.load("finetune", line)).run_dir


@pytest.fixture(scope="module")
def seeds(root: Path) -> list[Path]:
    return [train(root, f"seed={seed}") for seed in (0, 1)]


def evaluate(root: Path, *runs: Path, samples: int = 200) -> EvaluateResult:
    named = ",".join(f"'{run}'" for run in runs)
    line = [f"output_root={root}", f"run=[{named}]", f"evaluation.bootstrap_samples={samples}"]
    return finflow.evaluate(finflow.load("evaluate", line))


def test_seeds_are_averaged_to_one_strategy(root: Path, seeds: list[Path]) -> None:
    result = evaluate(root, *seeds)
    assert result.study is not None
    assert result.study.kind == "seeds"
    assert [member.label for member in result.study.members] == ["seed 0", "seed 1"]
    assert result.study.underpowered
    config = finflow.load("evaluate", [f"output_root={root}"])
    group = Group(tuple(load_trained(config, str(run)) for run in seeds))
    policies = [run.policy for run in group.runs]
    for part in policies[1].actor.parameters():  # both seeds may have kept the start, where all seeds are alike
        part.data.add_(0.1)
    rows, held = np.array([1500]), np.full((1, 5), 0.2)
    apart = [policy.act(rows, held, np.zeros(1)) for policy in policies]
    assert not np.array_equal(*apart)
    np.testing.assert_array_equal(group.policy.act(rows, held, np.zeros(1)), (apart[0] + apart[1]) / 2)
    ratios = [member.metrics.sharpe for member in result.study.members]
    assert result.study.middle is not None
    assert result.study.middle[0] == pytest.approx(sum(ratios) / 2)
    assert "underpowered" in result.report.read_text().lower()


def test_other_runs_stand_side_by_side(root: Path, seeds: list[Path]) -> None:
    other = train(root, "algo.risk_weight=0.5")
    move_actor(other, 7)  # where both kept the start, they would be the same policy
    result = evaluate(root, seeds[0], other)
    assert result.study is not None
    assert result.study.kind == "comparison"
    labels = [member.label for member in result.study.members]
    assert any("risk_weight=0.5" in label for label in labels)
    assert labels[1] in result.evaluation.baselines
    chosen = result.study.selection
    assert chosen is not None
    assert (chosen.trials, chosen.best in labels) == (2, True)
    assert chosen.probabilistic is not None
    assert chosen.deflated is not None
    assert chosen.deflated <= chosen.probabilistic
    assert "deflated for 2 settings" in result.report.read_text()
    assert "minimum variance, daily" in result.evaluation.metrics


@pytest.fixture(scope="module")
def apart(root: Path, seeds: list[Path]) -> list[Path]:
    """Copies of the seeds, each away from its start."""
    found = [Path(shutil.copytree(run, root / "apart" / run.name)) for run in seeds]
    for seed, run in enumerate(found):
        move_actor(run, seed)
    return found


def decide(root: Path, *runs: Path, **settings: object) -> DecideResult:
    typed = [f"{key}={value}" for key, value in settings.items()]
    return finflow.decide(finflow.load("decide", [f"output_root={root}", f"run=[{','.join(map(str, runs))}]", *typed]))


def test_seeds_that_were_judged_together_are_traded_together(root: Path, apart: list[Path]) -> None:
    judged = evaluate(root, *apart)
    together, *alone = (decide(root, *runs, capital=1000) for runs in (apart, apart[:1], apart[1:]))
    targets = [np.array([trade.target for trade in each.trades]) for each in (together, *alone)]
    assert np.abs(targets[1] - targets[2]).max() > 1e-3
    # Alone each has the drawdown of its own model portfolio: averaged are decisions in the common state.
    drawdown = json.loads(together.log.read_text().splitlines()[-1])["drawdown"]
    config = finflow.load("decide", [f"output_root={root}"])
    policies = [Group((load_trained(config, str(run)),)).entering({1999}) for run in apart]
    own = [policy.act(np.array([1999]), np.eye(5)[-1:], np.array([drawdown]))[0] for policy in policies]
    np.testing.assert_allclose(targets[0], (own[0] + own[1]) / 2, atol=1e-7)
    assert together.verdict == judged.evaluation.verdict.line()
    assert {each.verdict for each in alone}.isdisjoint({together.verdict})
    assert together.runs == tuple(apart)


def test_seeds_that_were_judged_together_are_explained_together(
    root: Path, apart: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The card is of the average: its parts sum to the trade that was judged, its attribution to the weight."""
    named = [f"output_root={root}", f"run=[{','.join(map(str, apart))}]"]
    judged = evaluate(root, *apart)
    explained = finflow.explain(finflow.load("explain", [*named, "top=1"]))
    (card,), (page,) = explained.cards, explained.pages
    capsys.readouterr()
    commands.explain(finflow.load("explain", [*named, "top=1"]), root / "cards")
    assert "Averaged: the decisions of 2 seeds, as one policy" in capsys.readouterr().out
    assert f"test window · 2 seeds averaged: {', '.join(card.provenance['run'])}<" in page.read_text()
    assert card.turnover == judged.evaluation.policy.turnover[1:].max()
    assert card.provenance["seed"] == [0, 1]
    for line in card.lines:
        assert sum(line.experts) + line.execution == pytest.approx(line.trade, abs=1e-12)
        assert abs(line.execution) < 1e-6
    for why in (card.why_trade, card.why_aim):
        assert why.value == pytest.approx(why.average + sum(r.share for r in why.top) + why.rest + why.residual)
    assert card.date in json.loads((judged.run_dir / "explanations.json").read_text())["cards"]
    with pytest.raises(ConfigError, match="opened for this run"):
        finflow.explain(finflow.load("explain", [f"output_root={root}", f"run={apart[0]}", "top=1"]))


def test_runs_that_are_no_one_strategy_are_not_traded(root: Path, seeds: list[Path]) -> None:
    other = train(root, "algo.risk_weight=0.25")
    before = sorted(root.glob("*/*/*"))
    for stage, do in (("decide", finflow.decide), ("explain", finflow.explain)):
        with pytest.raises(ConfigError, match=r"run: these differ by algo\.risk_weight: no one strategy; name one run"):
            do(finflow.load(stage, [f"output_root={root}", f"run=[{seeds[0]},{other}]"]))
    assert sorted(root.glob("*/*/*")) == before


def test_every_opening_is_counted(root: Path, seeds: list[Path]) -> None:
    first = evaluate(root, seeds[0]).evaluation.window_opened
    assert evaluate(root, seeds[0], samples=150).evaluation.window_opened == first + 1
    lines = (root / "test_ledger.jsonl").read_text().splitlines()
    assert len(lines) == first + 1
    entry = json.loads(lines[0])
    lines[0] = lines[0].replace(entry["run"], "some/other")
    (root / "test_ledger.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(Exception, match=r"test_ledger\.jsonl") as refused:
        evaluate(root, seeds[0])
    assert refused.value.exit_code == 6  # type: ignore[attr-defined]
    (root / "test_ledger.jsonl").unlink()


def test_the_same_run_twice_and_mixed_data_are_refused(root: Path, seeds: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="named twice"):
        evaluate(root, seeds[0], seeds[0])
    stranger = train(root, "env.synthetic.seed=5")
    with pytest.raises(ConfigError, match="different data"):
        evaluate(root, seeds[0], stranger)


def test_folds_are_stitched_end_to_end(tmp_path: Path) -> None:
    small = [*TINY, "env.episode_days=42", *TUNE, "init.weights=null", f"output_root={tmp_path}"]
    runs = [finflow.finetune(finflow.load("finetune", [*small, f"fold={fold}"])).run_dir for fold in (2000, 2008)]
    result = evaluate(tmp_path, *reversed(runs))
    assert result.study is not None
    assert result.study.kind == "folds"
    policy = result.evaluation.policy
    dates = policy.dates
    assert (np.diff(dates).astype(int) > 0).all()
    years = set(dates.astype("datetime64[Y]").astype(int) + 1970)
    assert years == {2000, 2001, 2002, 2008, 2009}
    assert len(dates) == sum(len(rows(result.run_dir / f"fold-{fold}" / "returns.csv")) for fold in (2000, 2008))
    assert result.evaluation.metrics["policy"].sharpe == pytest.approx(sharpe_ratio(policy.net))
    first = float(policy.cost[0])
    entry = int(np.flatnonzero(dates >= np.datetime64("2008-01-01"))[0])
    assert first > 0
    assert policy.cost[entry] > 0  # each fold buys its own portfolio
    assert {crisis.name for crisis in result.evaluation.scrutiny.stress} == {"dot-com", "financial crisis"}
    again = evaluate(tmp_path, *reversed(runs))
    assert again.rendered_from == result.run_dir
    assert again.study == result.study
    for name in ("metrics.json", "returns.csv", "fold-2000/ledger.csv", "fold-2008/weights.csv", "explanations.json"):
        assert (again.run_dir / name).read_bytes() == (result.run_dir / name).read_bytes()


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def test_an_audit_never_opens_the_window(root: Path, seeds: list[Path]) -> None:
    line = [f"output_root={root}", f"run='{seeds[0]}'", "audit=true"]
    with pytest.raises(ConfigError, match=r"finflow\.audit"):
        finflow.evaluate(finflow.load("evaluate", line))
