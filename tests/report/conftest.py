"""An evaluation made of random walks: 1260 days, 20 names and cash, five experts; nothing is read or trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from finflow.data.market import CASH, REGIMES
from finflow.evaluation.metrics import measure
from finflow.evaluation.result import (
    Comparison,
    CostRow,
    Evaluation,
    GateInformation,
    Metrics,
    Reality,
    Regression,
    Scrutiny,
    Stress,
    Track,
    Verdict,
)
from finflow.evaluation.study import Member, Selection, Setting, Study
from finflow.report.page import RunFacts, write_report

HOSTILE = "<script>alert(1)</script>"
NAMES = ("AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO", "LLY", "MRK", "MSFT", "PEP", "PFE", "PG",
         "RRC", "UNH", "WMT", HOSTILE)  # fmt: skip
BASELINES = ("1/N daily", "1/N monthly", "buy and hold", "inverse volatility", "minimum variance",
             "maximum diversification", "equal risk contribution", "HRP", "momentum 12-1")  # fmt: skip
CRISES = (("pandemic", "2020-02-19", "2020-04-30"), ("inflation", "2022-01-03", "2022-10-12"))
EXPERTS = ("volatility", "correlation", "momentum", "defensive", "growth")
WARNINGS = (
    "The 20 names are survivors chosen with hindsight: every strategy here looks better than it could have been.",
    "1 seed: underpowered, 10 seeds are the least that count.",
)


def business_days(days: int) -> NDArray[np.datetime64]:
    return np.busday_offset(np.datetime64("2018-01-02"), np.arange(days))


def smooth_shares(rng: np.random.Generator, days: int, k: int, pace: float, sharpness: float) -> NDArray[np.float64]:
    """Mean-reverting logits through a softmax: [days, k] rows that sum to 1."""
    logits = np.zeros((days, k))
    state = rng.normal(0, 1, k)
    for t in range(days):
        state = (1 - pace) * state + np.sqrt(2 * pace) * rng.normal(0, 1, k)
        logits[t] = state
    exp = np.exp(sharpness * logits)
    return exp / exp.sum(axis=1, keepdims=True)


def make_track(name: str, weights: NDArray[np.float64], returns: NDArray[np.float64], every: int) -> Track:
    """Follow target `weights` every so many days, with drift and 15 bp of cost, over `returns` [R, n]."""
    days, n = returns.shape
    executed, drifted = np.zeros((days, n)), np.zeros((days, n))
    turnover, gross = np.zeros(days), np.zeros(days)
    held = np.eye(n)[-1]
    for t in range(days):
        drifted[t] = held
        executed[t] = weights[t] if t % every == 0 else held
        turnover[t] = np.abs(executed[t] - held)[:-1].sum()
        gross[t] = executed[t] @ returns[t]
        held = executed[t] * (1 + returns[t]) / (1 + gross[t])
    cost = 0.0015 * turnover
    net = (1 - cost) * (1 + gross) - 1
    return Track(name, business_days(days), executed, drifted, turnover, cost, gross, net, closures=0)


def figures(track: Track, chosen: NDArray[np.bool_] | None = None) -> Metrics:
    keep = np.ones(len(track.net), dtype=bool) if chosen is None else chosen
    return measure(track.net[keep], track.turnover[keep], track.weights[keep])


def worth(difference: float, half: float = 0.08) -> Comparison:
    """What a part is worth: the policy's Sharpe ratio minus that without it, within `half` either way."""
    return Comparison("variant", None, difference, difference - half, difference + half, 0.2)


def make_scrutiny(tracks: dict[str, Track], verdict: Verdict) -> Scrutiny:
    stress: list[Stress] = []
    for name, first, last in CRISES:
        rows = (tracks["policy"].dates >= np.datetime64(first)) & (tracks["policy"].dates <= np.datetime64(last))
        if rows.any():
            found = {k: figures(track, rows) for k, track in tracks.items()}
            pairs = {k: (m.final_nav - 1, m.max_drawdown or 0.0) for k, m in found.items()}
            stress.append(Stress(name, first, last, pairs))
    whole, late = 0.83, tracks["policy"].net - 0.00005
    return Scrutiny(
        comparisons=(
            Comparison("1/N monthly", -0.12, verdict.difference, verdict.low, verdict.high, verdict.p_value),
            Comparison("maximum diversification", 0.63, 0.58, 0.07, 1.09, 0.021),
            Comparison("linear tilt", 0.11, -0.04, -0.31, 0.22, 0.77),
        ),
        best_baseline="maximum diversification",
        spa_p=0.412,
        lagged=measure(late, tracks["policy"].turnover, tracks["policy"].weights),
        stress=tuple(stress),
        reality=(
            Reality("policy", whole, 0.21, 0.0, None),
            *(Reality(f"without {k}", whole - d, 0.21 - d / 2, 0.04 + abs(d), worth(d))
              for k, d in zip(EXPERTS, (0.05, 0.0, 0.11, -0.03, 0.02), strict=True)),
            Reality("shuffled gate", whole + 0.01, 0.22, 0.071, worth(-0.01)),
            Reality("experts at their priors", whole - 0.04, None, 0.118, worth(0.04)),
        ),
        gate=GateInformation(0.021, 0.013, 0.012),
        detectable=0.43,
        regression=Regression({"return_1d": -0.4, "momentum_12_1": 0.7}, 0.25, 0.1, 0.62),
    )  # fmt: skip


def make_study(kind: str, evaluation: Evaluation, labels: tuple[str, ...]) -> Study:
    """Members that differ from the evaluation's policy by a fixed pattern."""
    own, verdict = evaluation.metrics["policy"], evaluation.verdict
    shift = [0.31 * np.sin(2.4 * i + 0.5) for i in range(len(labels))]
    members = tuple(
        Member(
            label,
            replace(own, sharpe=(own.sharpe or 0) + d, annual_return=(own.annual_return or 0) + 0.1 * d),
            replace(verdict, difference=verdict.difference + d, low=verdict.low + d, high=verdict.high + d,
                    outcome="WORSE THAN" if verdict.high + d < 0 else verdict.outcome),
        )
        for label, d in zip(labels, shift, strict=True)
    )  # fmt: skip
    seeds = kind == "seeds"
    middle = ((own.sharpe or 0) + 0.03, (own.sharpe or 0) - 0.09, (own.sharpe or 0) + 0.13) if seeds else None
    return Study(kind, members, middle, underpowered=seeds and len(labels) < 10)  # pyright: ignore


def make_comparison(evaluation: Evaluation, labels: tuple[str, str, str]) -> Study:
    """Three settings of two seeds: the reference, one that beats it, and one that kept the hand-over as it did."""
    study = make_study("comparison", evaluation, labels)
    beats = Comparison(labels[0], 0.5, 0.4, 0.1, 0.7, 0.01)
    level = Comparison(labels[0], 0.0, 0.0, 0.0, 0.0, 1.0)
    settings = (
        Setting((0, 1), (0.5, 0.4, 0.6), None, None, "", 1, 0),
        Setting((0, 1), (0.9, 0.7, 1.1), beats, (0.3, 0.2, 0.5), "", 0, 0),
        Setting((0, 1), (0.5, 0.4, 0.6), level, (0.0, 0.0, 0.0), labels[0], 2, 0),
    )
    members = tuple(replace(m, setting=own) for m, own in zip(study.members, settings, strict=True))
    chosen = Selection(labels[1], 0.9, 0.8, 0.85, 2, 1.5, 0.2)
    return replace(study, members=members, underpowered=True, selection=chosen)


def stitched(evaluation: Evaluation) -> Evaluation:
    """The same rows dated as four windows with years between them, as folds stitched together are."""
    starts = np.array(["2000-01-03", "2008-01-02", "2013-01-02", "2018-01-02"], dtype="datetime64[D]")
    parts = [np.busday_offset(start, np.arange(len(rows)), roll="forward")
             for start, rows in zip(starts, np.array_split(evaluation.policy.dates, 4), strict=True)]  # fmt: skip
    dates = np.concatenate(parts)
    return replace(
        evaluation,
        policy=replace(evaluation.policy, dates=dates),
        baselines={name: replace(track, dates=dates) for name, track in evaluation.baselines.items()},
        costs=[],
        scrutiny=replace(evaluation.scrutiny, regression=None),
    )


def make_evaluation(days: int = 1260, names: tuple[str, ...] = NAMES) -> Evaluation:
    rng = np.random.default_rng(11)
    d = len(names)
    regime = np.repeat([0, 1, 2, 1, 3, 2, 1, 0, 1], -(-days // 9))[:days].astype(np.int8)
    risk = np.array([0.007, 0.010, 0.018, 0.026])[regime][:, None]
    market = 0.0004 + 0.6 * risk * rng.normal(0, 1, (days, 1))
    returns = np.c_[market + risk * rng.normal(0, 1, (days, d)), np.full(days, 0.00004)]
    equal = np.r_[np.full(d, 1 / d), 0.0]
    baselines = {
        name: make_track(
            name,
            np.tile(equal, (days, 1)) if "1/N" in name else smooth_shares(rng, days, d + 1, 0.004, 0.2 + 0.15 * i),
            returns,
            every={"1/N daily": 1, "buy and hold": days}.get(name, 21),
        )
        for i, name in enumerate(BASELINES)
    }
    tilted = smooth_shares(np.random.default_rng(12), days, d + 1, 0.02, 0.3)
    baselines["linear tilt"] = make_track("linear tilt", tilted, returns, every=1)
    shares = smooth_shares(rng, days, d, 0.006, 0.9)
    cash = 0.05 + 0.25 * (regime >= 2)
    cash = np.convolve(np.r_[np.full(39, cash[0]), cash], np.full(40, 1 / 40), "valid")[:, None]
    policy = make_track("policy", np.c_[shares * (1 - cash), cash], returns, every=1)
    tracks = {"policy": policy, **baselines}
    metrics = {name: figures(track) for name, track in tracks.items()}
    metrics["buy and hold"] = replace(metrics["buy and hold"], tail_ratio=None, calmar=None)
    ahead = (metrics["policy"].sharpe or 0) - (metrics["1/N monthly"].sharpe or 0)
    labels = [REGIMES[i] for i in sorted({int(r) for r in regime})]
    chosen = {name: regime == REGIMES.index(name) for name in labels}
    verdict = Verdict(
        "INDISTINGUISHABLE FROM", ahead, ahead - 0.41, ahead + 0.41, "1/N monthly", 5000, 63, p_value=0.14
    )
    return Evaluation(
        verdict=verdict,
        scaled_verdict=replace(verdict, difference=ahead + 0.02, p_value=0.13, scale=1.14),
        policy=policy,
        baselines=baselines,
        metrics=metrics,
        by_regime={r: {name: figures(track, rows) for name, track in tracks.items()} for r, rows in chosen.items()},
        regime_days={r: int(rows.sum()) for r, rows in chosen.items()},
        scrutiny=make_scrutiny(tracks, verdict),
        costs=[CostRow(bps, 0.71 - 0.0133 * bps, 0.082 - 0.0017 * bps, 0.82 - 0.0006 * bps) for bps in (0, 5, 10, 25)],
        break_even_bps=None,
        assets=(*names, CASH),
        expert_names=EXPERTS,
        gate=smooth_shares(rng, days, 5, 0.01, 0.6),
        rate=0.1 + 0.05 * smooth_shares(rng, days, 2, 0.02, 1.0)[:, 0],
        regime=regime,
        diagnostics={
            "gate_entropy": 1.31, "gate_entropy_change": -0.29, "expert_distance": 0.182,
            "expert_distance_change": 0.021,
        },
        warnings=WARNINGS,
        window_opened=3,
        cash=np.full(days, 0.00004),
    )  # fmt: skip


def make_histories() -> tuple[list[dict[str, float | int | None]], list[dict[str, float | int | None]]]:
    rng = np.random.default_rng(5)
    pretrain: list[dict[str, float | int | None]] = [
        {"epoch": e, "v_loss": 0.4 * np.exp(-e / 12) + 0.05, "q_loss": 2 * np.exp(-e / 15) + 0.6,
         "policy_loss": 3.04 - 0.3 * (1 - np.exp(-e / 20)), "validation_sharpe": 0.6 + 0.2 * (1 - np.exp(-e / 10))}
        for e in range(1, 51)
    ]  # fmt: skip
    finetune: list[dict[str, float | int | None]] = []
    for e in range(1, 1001):
        grown = 1 - np.exp(-e / 300)
        row: dict[str, float | int | None] = {
            "episode": e, "return": 0.06 * grown + rng.normal(0.08, 0.15), "sharpe": 0.4 * grown + rng.normal(0.6, 0.9),
            "cvar": 0.025 + abs(rng.normal(0, 0.008)), "critic_loss": 1.2 - 0.4 * grown + rng.normal(0, 0.06),
            "actor_loss": -0.3 * grown + rng.normal(0, 0.1) if e > 60 else None,
            "alpha": 0.75 * np.exp(-e / 400) + 0.02, "entropy": 4.3 - 9 * grown,
            "validation_gate_entropy": 1.6 - 0.3 * grown, "validation_expert_distance": 0.16 + 0.02 * grown,
        }  # fmt: skip
        if e % 50 == 0:
            row |= {"validation_sharpe": 0.7 + 0.2 * grown + rng.normal(0, 0.05),
                    "validation_active_information_ratio": 0.1 + 0.3 * grown + rng.normal(0, 0.06)}  # fmt: skip
        finetune.append(row)
    return pretrain, finetune


def make_facts() -> RunFacts:
    pretrain, finetune = make_histories()
    return RunFacts(
        title="B-Cell fine-tuning, all regimes, fold 2018",
        folder="outputs/finetune/bcell/2024-05-14T09-12-33-104-s0",
        config="stage: finetune\nseed: 0\nname: bcell\nalgo:\n  lr: 0.0003\n" + "env:\n  source: sp500\n" * 8,
        provenance={
            "versions": {"finflow": "0.1.0", "python": "3.12.3", "torch": "2.13.0", "numpy": "2.4.6"},
            "git_commit": "5d41402abc4b2a76b9719d911017c592", "data_fingerprint": "9b74c9897bac770f",
            "parent": {"weights": "outputs/pretrain/iql/2024-05-14T08-40-02-771-s0/weights.safetensors",
                       "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
            "seed": 0, "threads": 1,
        },
        fold="2018",
        fold_dates={"train": ("1995-01-03", "2014-11-28"), "validation": ("2014-12-31", "2017-11-29"),
                    "test": ("2018-01-02", "2022-12-28")},
        pretrain=pretrain,
        finetune=finetune,
        confidence={"": "deployed at 0.76 of its tilt (out of fold +1.2 % a year, t 2.1, over 9 years)"},
        next_command="python experiments/decide.py run=outputs/finetune/bcell/2024-05-14T09-12-33-104-s0",
    )  # fmt: skip


@pytest.fixture(scope="session", name="make_evaluation")
def factory() -> Callable[..., Evaluation]:
    """Makes an evaluation of other size: `make_evaluation(days, names)`."""
    return make_evaluation


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    return make_evaluation()


@pytest.fixture(scope="session")
def facts() -> RunFacts:
    return make_facts()


@pytest.fixture(scope="session")
def small() -> Evaluation:
    """Quick to render: two names over 60 days, which hold no crisis."""
    return make_evaluation(60, ("A", "B"))


@pytest.fixture(scope="session")
def brief(facts: RunFacts) -> RunFacts:
    """Facts without histories, quick to render."""
    return replace(facts, pretrain=[], finetune=[])


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory, evaluation: Evaluation, facts: RunFacts) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, evaluation, facts)
    return path


@pytest.fixture(scope="session")
def studies(evaluation: Evaluation) -> dict[str, Study]:
    return {
        "seeds": make_study("seeds", evaluation, (*(f"seed {i}" for i in range(8)), HOSTILE)),
        "folds": make_study("folds", evaluation, ("2000", "2008", "2013", "2018")),
        "comparison": make_comparison(evaluation, ("bcell", HOSTILE, "from scratch " * 6)),
    }


@pytest.fixture(scope="session", name="stitched")
def stitched_evaluation() -> Evaluation:
    return stitched(make_evaluation(1260, ("A", "B")))


@pytest.fixture(scope="session")
def study_files(
    tmp_path_factory: pytest.TempPathFactory, small: Evaluation, stitched: Evaluation, studies: dict[str, Study],
    brief: RunFacts,
) -> dict[str, Path]:  # fmt: skip
    """A page of each kind of study; that of folds is of a stitched track."""
    folder = tmp_path_factory.mktemp("studies")
    files = {kind: folder / f"{kind}.html" for kind in studies}
    for kind, path in files.items():
        write_report(path, stitched if kind == "folds" else small, brief, studies[kind])
    return files
