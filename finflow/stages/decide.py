"""Target weights and trades for the latest date in the data; no return is shown."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.agents.greedy import GreedyPolicy
from finflow.artifacts.commands import command_for
from finflow.artifacts.names import SUMMARY
from finflow.artifacts.provenance import Stopwatch, run_record, write_config, write_run, write_summary
from finflow.artifacts.runs import opened_by
from finflow.config import run_folder
from finflow.data.calendar import CALENDAR
from finflow.data.csv_table import read_as
from finflow.data.market import FROZEN, Market, Window
from finflow.envs.ledger import book, execute
from finflow.errors import ConfigError
from finflow.evaluation.result import Floats
from finflow.io.files import atomic_write, read_json
from finflow.schema import Config
from finflow.stages.loaded_run import Trained, judging, load_trained, single_run
from finflow.stages.results import DecideResult, Trade
from finflow.stages.ticket import Holdings, Order, Ticket, read_holdings, ticket
from finflow.tracking.console import warn

UNQUOTED = "no price yet: held"


def decide(config: Config, run_dir: Path | None = None) -> DecideResult:
    """Decide at the last close, and write an order ticket from what is held.

    `capital` alone is cash. Without either the policy's model portfolio is followed from the start of its test window
    to the last close.

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
    prepared, own = trained.prepared, judging(config, trained)
    market = prepared.market
    prices = np.where(unquoted(market)[:-1], np.nan, market.close[-1])
    owned = _owned(config, market.assets, prices)
    with stopwatch.phase("decide"):
        day, trades = latest_decision(trained, None if owned is None else owned.weights)
        held, target = (np.array([getattr(trade, name) for trade in trades]) for name in ("held", "target"))
        orders = ticket(
            market.assets, prices, held, target, capital=None if owned is None else owned.value,
            cost_rate=prepared.accounting.cost_rate, min_trade=config.min_trade, lot=config.lot,
        )  # fmt: skip
    folder = run_dir or Path(run_folder(own.output_root, own.stage, own.name, own.seed))
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, own)
    rows = [
        "asset,held,target,trade,note",
        *(f"{t.asset},{t.held:.6f},{t.target:.6f},{t.trade:.6f},{t.note}" for t in trades),
    ]
    table = folder / "decision.csv"
    atomic_write(table, ("\n".join(rows) + "\n").encode())
    listed = folder / "orders.csv"
    atomic_write(listed, _order_rows(orders).encode())
    new_days = 0 if trained.past.changed else trained.past.new_days
    facts = {
        CALENDAR: prepared.market.calendar.facts(),
        "run": str(trained.folder),
        "settings": {name: getattr(config, name) for name in ("run", "holdings", "capital", "min_trade", "lot")},
        "as_of": day,
        "new_days": new_days,
    }
    record = run_record(
        own, prepared.market.fingerprint, prepared.dates, own.seed, trained.record.get("parent"), stopwatch,
        finished=True, facts=facts,
    )  # fmt: skip
    write_run(folder, record)
    said = None if trained.confidence is None else trained.confidence.line()
    verdict = _verdict(trained)
    summary = {"verdict": verdict, "confidence": said, "targets": {t.asset: t.target for t in trades}}
    write_summary(folder, {"stage": "decide", "as_of": day, **summary, "ticket": asdict(orders)})
    following = command_for("evaluate", trained.config, {"run": trained.folder})
    decides = bool(prepared.market.decision[-1])
    return DecideResult(
        folder, day, trades, orders, owned is not None, table, listed, trained.folder, verdict, said, new_days,
        following, decides,
    )  # fmt: skip


def _owned(config: Config, assets: Sequence[str], prices: Floats) -> Holdings | None:
    """Holdings from a file, or the capital in cash; None without either."""
    if config.holdings is None:
        return None if config.capital is None else Holdings(np.eye(len(assets))[-1], config.capital)
    with read_as("holdings"):
        found = read_holdings(Path(config.holdings), assets, prices)
    if found.value is not None and config.capital is not None:
        worth = f"the shares of holdings are worth {found.value:,.2f}"
        raise ConfigError(f"capital={config.capital:g}: {worth}; leave it out")
    return Holdings(found.weights, found.value or config.capital)


def _order_rows(orders: Ticket) -> str:
    """`orders.csv`; blank where no capital is known."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(Order)])
    table.writerows(astuple(order) for order in orders.orders)
    return text.getvalue()


def _verdict(trained: Trained) -> str | None:
    """Verdict of the newest evaluation of this run alone, or of its fold in one of several."""
    fold, test = trained.prepared.fold.name, trained.prepared.dates["test"]
    sha256 = str(trained.summary.get("weights_sha256"))
    place = opened_by(trained.config.output_root, sha256, fold, list(test))
    if place is None:
        return None
    figures = read_json(place / (SUMMARY if (place / SUMMARY).exists() else "metrics.json"))
    return str(figures["verdict"]["line"]) if "verdict" in figures else None


def latest_decision(trained: Trained, owned: Floats | None = None) -> tuple[str, tuple[Trade, ...]]:
    """Date of the last close, and what the policy would hold after it, by asset, cash last.

    Parameters
    ----------
    owned : [n] weights that are held there; None for those of the model portfolio. The drawdown is the model's. Cash
        alone is a portfolio that is entered: the whole aim is bought, as at the start of a window.
    """
    prepared, policy = trained.prepared, trained.policy
    market, accounting = prepared.market, prepared.accounting
    last = len(market.dates) - 1
    track = prepared.track(Window(prepared.fold.test.start, last + 1), policy.act)
    pending = unquoted(market)
    returns = np.where(pending, 0.0, market.returns[last])
    booked = book(track.weights[-1], track.drifted[-1], returns, accounting.cost_rate)
    held = booked.drifted[None] if owned is None else owned[None]
    drawdown = np.maximum(track.drawdown_before[-1:] - np.log1p(booked.net[None]), 0.0)
    rows = np.array([last])
    entered = owned is not None and owned[-1] >= 1.0
    if entered:
        policy = GreedyPolicy(policy.actor, policy.world, {last})
    target = policy.act(rows, held, drawdown)
    status = np.where(pending, FROZEN, market.status[rows])
    executed = execute(target, held, status, market.decision[rows] | entered, accounting)[0]
    notes = [UNQUOTED if waits else "" for waits in pending]
    columns = zip(market.assets, held[0], executed, notes, strict=True)
    return str(market.dates[last]), tuple(Trade(name, float(h), float(t), note) for name, h, t, note in columns)


def unquoted(market: Market) -> NDArray[np.bool_]:
    """[n] names that lack a price in the newest row alone: more often late than delisted, so they are held."""
    priced = np.isfinite(market.close)
    return np.append(priced[-2] & ~priced[-1], False)
