"""Target weights and trades for the latest date in the data; no return is shown."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.artifacts.commands import command_for
from finflow.artifacts.files import atomic_write
from finflow.artifacts.provenance import Stopwatch, run_record, write_config, write_run, write_summary
from finflow.config import run_folder
from finflow.data.calendar import CALENDAR
from finflow.data.market import FROZEN, Market, Window
from finflow.envs.ledger import book, execute
from finflow.evaluation.backtest import backtest
from finflow.schema import Config
from finflow.stages.results import DecideResult, Trade
from finflow.stages.trained import Trained, judging, load_trained, single_run
from finflow.tracking.console import warn

UNQUOTED = "no price yet: held"
SMALLEST = 5e-5  # trades below half a basis point are left out


def decide(config: Config, run_dir: Path | None = None) -> DecideResult:
    """Follow the policy's model portfolio from the start of its test window to the last close, and decide there.

    Raises
    ------
    ConfigError, DataError, StorageError
        One line each, see `finflow.errors`.
    """
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        trained = load_trained(config, single_run(config), config.env.end)
    if trained.past.changed is not None:
        warn(f"run={trained.folder}: trained on other data: the {trained.past.changed} changed since")
    with stopwatch.phase("decide"):
        day, trades = latest_decision(trained)
    prepared, own = trained.prepared, judging(config, trained)
    folder = run_dir or Path(run_folder(own.output_root, own.stage, own.name, own.seed))
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, own)
    rows = [
        "asset,held,target,trade,note",
        *(f"{t.asset},{t.held:.6f},{t.target:.6f},{t.trade:.6f},{t.note}" for t in trades),
    ]
    table = folder / "decision.csv"
    atomic_write(table, ("\n".join(rows) + "\n").encode())
    new_days = 0 if trained.past.changed else trained.past.new_days
    facts = {
        CALENDAR: prepared.market.calendar.facts(),
        "run": str(trained.folder),
        "settings": {"run": config.run},
        "as_of": day,
        "new_days": new_days,
    }
    record = run_record(
        own, prepared.market.fingerprint, prepared.dates, own.seed, trained.record.get("parent"), stopwatch,
        finished=True, facts=facts,
    )  # fmt: skip
    write_run(folder, record)
    said = None if trained.confidence is None else trained.confidence.line()
    write_summary(
        folder, {"stage": "decide", "as_of": day, "confidence": said, "targets": {t.asset: t.target for t in trades}}
    )
    following = command_for("evaluate", trained.config, {"run": trained.folder})
    decides = bool(prepared.market.decision[-1])
    return DecideResult(folder, day, trades, table, trained.folder, said, new_days, following, decides)


def latest_decision(trained: Trained) -> tuple[str, tuple[Trade, ...]]:
    """Date of the last close, and what the policy would hold after it, by asset, cash last."""
    prepared, policy = trained.prepared, trained.policy
    market, accounting = prepared.market, prepared.accounting
    last = len(market.dates) - 1
    track = backtest(market, Window(prepared.fold.test.start, last + 1), accounting, {"policy": policy.act})["policy"]
    pending = unquoted(market)
    returns = np.where(pending, 0.0, market.returns[last])
    booked = book(track.weights[-1], track.drifted[-1], returns, accounting.cost_rate)
    held = booked.drifted[None]
    drawdown = np.maximum(track.drawdown_before[-1:] - np.log1p(booked.net[None]), 0.0)
    rows = np.array([last])
    target = policy.act(rows, held, drawdown)
    status = np.where(pending, FROZEN, market.status[rows])
    executed = execute(target, held, status, market.decision[rows], accounting)[0]
    notes = [UNQUOTED if waits else "" for waits in pending]
    columns = zip(market.assets, held[0], executed, notes, strict=True)
    return str(market.dates[last]), tuple(Trade(name, float(h), float(t), note) for name, h, t, note in columns)


def unquoted(market: Market) -> NDArray[np.bool_]:
    """[n] names without a price in the newest row alone: far more often not quoted yet than delisted, so held."""
    priced = np.isfinite(market.close)
    return np.append(priced[-2] & ~priced[-1], False)
