"""A strategy from outside on a test window: ledger, baselines, statistics and report of FinFlow's own policies."""

import json
from pathlib import Path
from typing import Any

from finflow.allocators.baselines import require_online_selection
from finflow.artifacts.provenance import Stopwatch, finish_run, made_folder, run_record
from finflow.artifacts.runs import HEAD, OPENING, check_arguments, command_for, noted_heads, under
from finflow.config.compose import load, named
from finflow.data.build import build_market
from finflow.data.csv_table import read_as
from finflow.data.features import FeatureScaling
from finflow.data.market import Market, fold_dates, make_fold
from finflow.data.series import EQUAL_WEIGHT
from finflow.envs.gym_env import Observations
from finflow.envs.ledger import Accounting
from finflow.errors import ConfigError
from finflow.evaluation.backtest import Bootstrap, Candidate, Task
from finflow.evaluation.evaluate import evaluate_policy
from finflow.evaluation.files import figures, write_evaluation
from finflow.evaluation.strategies import Function, Model, outsider, read_returns, read_weights
from finflow.evaluation.test_window_log import record_opening, verify_openings
from finflow.io.files import flatten
from finflow.io.weights import sha256_of
from finflow.report.page import RunFacts, write_report
from finflow.schema import READS, Config
from finflow.stages.evaluated_runs import caveats
from finflow.stages.results import EvaluateResult
from finflow.tracking.sink import warn

AS_GIVEN = "the returns are taken as given: no trade was booked, and nothing shows that costs were paid"


def judge(
    strategy: Function | Model | None = None,
    *,
    name: str | None = None,
    config: Config | None = None,
    run_dir: Path | None = None,
) -> EvaluateResult:
    """Judge a strategy of any origin on the test window of `config.fold`, and write tables and report.

    Parameters
    ----------
    strategy : a function from a `History` to weights, or a model with `predict(observation, deterministic=True)`, which
        observes what `make_env` shows; None where `config.weights` or `config.returns` names a file.
    name : what it is called in the report and by its folder; `config.name` by default.
    config : of `finflow.load("judge", ...)`, which is the default: market, fold, costs, limits, bootstrap.

    Raises
    ------
    ConfigError
        If there is no strategy, or more than one.
    DataError
        If a file does not fit the market or window, before the window is opened; or if a strategy asks for what is no
        long-only portfolio: it is tried on the validation window first.
    StorageError, AuditError
        If a file cannot be written, or the log of openings was tampered with or cut.
    """
    config = config or load("judge")
    run_dir = check_arguments(config, "judge", run_dir)
    config = config if name is None else named(config, name)
    form = _form(strategy, config)
    require_online_selection(config.baselines)
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        market = build_market(config.env, Path(config.output_root) / "cache")
        task = Task(market, make_fold(market, config.env, config.fold), Accounting.of(config.env))
        scaling = FeatureScaling.fit(market, task.fold)
        candidate = _candidate(strategy, config, task, scaling)
        verify_openings(Path(config.output_root), noted_heads(config.output_root, OPENING, HEAD))
    folder = made_folder(config, run_dir)
    if any(not path.name.startswith(".") and path.suffix != ".log" for path in folder.iterdir()):
        raise ConfigError(f"run_dir={folder}: not empty; name a new folder")
    file = None if form == "strategy" else sha256_of(Path(str(getattr(config, form))))
    label = f"{folder.parent.name}/{folder.name}"
    data = _data_fingerprint(config, market)
    opening = record_opening(Path(config.output_root), data, task.fold.name, label, stopwatch.started)
    with stopwatch.phase("evaluate"):
        asked = config.evaluation
        evaluation = evaluate_policy(
            task,
            candidate,
            Bootstrap(asked.bootstrap_samples, market.calendar.rows(asked.block_days), config.seed),
            window_opened=opening.count,
            warnings=(*caveats(market, config.env), *((AS_GIVEN,) if form == "returns" else ())),
            own_benchmark=config.env.benchmark != EQUAL_WEIGHT,
            online_selection=config.baselines,
        )
    for line in evaluation.warnings:
        warn(line)
    following = command_for("pretrain", config)
    facts: dict[str, Any] = {
        "strategy": form,
        **({} if file is None else {"sha256": file}),
        "window_opened": opening.count,
        HEAD: opening.head,
    }
    record = run_record(config, market, fold_dates(market, task.fold), None, stopwatch, facts)
    report = folder / "report.html"
    with stopwatch.phase("report"):
        write_evaluation(folder, evaluation, task)
        write_report(report, evaluation, _run_facts(config, folder, task, record, following))
    finish_run(folder, config, record, stopwatch, {"strategy": form, **figures(evaluation)})
    return EvaluateResult(folder, report, evaluation, None, (), {}, 0, following)


def _form(strategy: object, config: Config) -> str:
    given = {"strategy": strategy, "weights": config.weights, "returns": config.returns}
    found = [form for form, value in given.items() if value is not None]
    if len(found) > 1:
        raise ConfigError(f"{' and '.join(found)}: one strategy is judged at a time; leave out all but one")
    if not found:
        raise ConfigError("weights, returns: neither is given; name a file, weights=FILE or returns=FILE")
    return found[0]


def _data_fingerprint(config: Config, market: Market) -> str:
    """Fingerprint of the data at daily decisions: a strategy may decide at any frequency in the same window."""
    usual = load("judge").env.rebalance
    if config.env.rebalance == usual:
        return market.fingerprint
    env = config.env.model_copy(update={"rebalance": usual})
    return build_market(env, Path(config.output_root) / "cache").fingerprint


def _candidate(strategy: Function | Model | None, config: Config, task: Task, scaling: FeatureScaling) -> Candidate:
    if config.returns is not None:
        with read_as("returns"):
            return Candidate(read_returns(Path(config.returns), task), scaling, ())
    if config.weights is not None:
        with read_as("weights"):
            policy, scalable = read_weights(Path(config.weights), task)
        return Candidate(policy, scaling, (), scalable=scalable)
    assert strategy is not None
    policy = outsider(strategy, task.market, Observations(task.market, *scaling.apply(task.market)))
    task.track(task.fold.validation, policy.act)  # so that its faults show before the window is opened
    return Candidate(policy, scaling, ())


def _run_facts(config: Config, folder: Path, task: Task, record: dict[str, Any], following: str) -> RunFacts:
    kept = ("strategy", "sha256", "seed", "data_fingerprint", "versions", "git", "window_opened")
    dates = fold_dates(task.market, task.fold)
    settings = {key: value for key, value in flatten(config.model_dump()).items() if under(key, READS["judge"])}
    return RunFacts(
        title=f"judge / {config.name}",
        folder=folder.name,
        config="\n".join(f"{key}: {json.dumps(value)}" for key, value in settings.items()),
        provenance={key: record[key] for key in kept if record.get(key) is not None},
        fold=task.fold.name,
        fold_dates={part: (dates[part][0], dates[part][1]) for part in ("train", "validation", "test")},
        pretrain=[],
        finetune=[],
        confidence={},
        next_command=following,
        calendar=task.market.calendar,
    )
