"""Target weights and trades for the latest date in the data, and the outcomes of earlier decisions."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path

import numpy as np

from finflow.allocators.baselines import EQUAL
from finflow.artifacts.provenance import Stopwatch, finish_run, made_folder
from finflow.artifacts.runs import SUMMARY, check_arguments, command_for, noted_heads, opened_by
from finflow.data.csv_table import read_as
from finflow.errors import ConfigError
from finflow.evaluation.decision_log import Realised, latest_by_date, realised
from finflow.evaluation.result import Floats
from finflow.explanations.card import Card
from finflow.explanations.decision import HOLD
from finflow.io.files import atomic_csv, read_json
from finflow.schema import Config
from finflow.stages.explaining import store_card
from finflow.stages.live import decision_for, followed, live_explainer, log_of, model_portfolio, unquoted
from finflow.stages.loaded_run import named_after, record_of, tell_other_data
from finflow.stages.results import DecideResult, Trade
from finflow.stages.run_groups import Group, confidence_lines, load_groups, named
from finflow.stages.ticket import Holdings, Order, Ticket, read_holdings, ticket

UNQUOTED = "no price yet: held"
SHOWN = 5  # earlier decisions whose outcomes are shown


def decide(config: Config, run_dir: Path | None = None) -> DecideResult:
    """Decide at the last close, and write an order ticket from what is held.

    `capital` alone is cash. Without either the policy's model portfolio is followed from the start of its test window
    to the last close. The decision has a card, and a line in the log of its policy's decisions.

    Raises
    ------
    ConfigError, DataError, StorageError, AuditError
        One line each, see `finflow.errors`.
    """
    run_dir = check_arguments(config, "decide", run_dir)
    stopwatch = Stopwatch()
    with stopwatch.phase("prepare"):
        groups = load_groups(config, config.env.end)
    group = groups[-1]  # the newest fold of a walk-forward is the one to trade
    trained, folders = group.first, tuple(run.folder for each in groups for run in each.runs)
    for run in group.runs:
        tell_other_data(run)
    prepared, own = group.prepared, named_after(config, trained)
    market = prepared.market
    prices = np.where(unquoted(market)[:-1], np.nan, market.close[-1])
    owned = _owned(config, market.assets, prices)
    log = log_of(group)
    noted = f"{log.path.parent.name}/{log.path.name}"
    earlier = latest_by_date(log.entries(noted_heads(own.output_root, (own.stage,), noted)))
    with stopwatch.phase("decide"):
        model = followed(group)
        last, drawdown = int(model.rows[-1]), float(model.track.drawdown_before[-1])
        trace = model if owned is None else decision_for(group, model, last, owned.weights, drawdown)
        held, target = trace.track.drifted[-1], trace.track.weights[-1]
        notes = [UNQUOTED if waits else "" for waits in unquoted(market)]
        columns = zip(market.assets, held.tolist(), target.tolist(), notes, strict=True)
        day, trades = str(market.dates[last]), tuple(Trade(*row) for row in columns)
        orders = ticket(
            market.assets, prices, held, target, capital=None if owned is None else owned.value,
            cost_rate=prepared.accounting.cost_rate, min_trade=config.min_trade, lot=config.lot,
        )  # fmt: skip
        found = (realised(entry, market, prepared.accounting) for entry in earlier.values())
        became = tuple(one for one in found if one is not None)[-SHOWN:]
    with stopwatch.phase("explain"):
        named_by = "cash" if config.holdings is None else f"the holdings of {Path(config.holdings).name}"
        portfolio = model_portfolio(model) if owned is None else named_by
        card = live_explainer(group, trace, portfolio).card(len(trace.rows) - 1)
    folder = made_folder(own, run_dir)
    table, listed = _write_tables(folder, trades, orders, became)
    page = store_card(folder, card)
    _, head = log.append({
        "when": stopwatch.started, "date": day, "fingerprint": market.fingerprint, "weights": group.weights,
        "runs": [f"{run.folder.parent.name}/{run.folder.name}" for run in group.runs], "owned": owned is not None,
        "held": dict(zip(market.assets, held.tolist(), strict=True)),
        "target": dict(zip(market.assets, target.tolist(), strict=True)),
        "drawdown": drawdown, "expected": _expected(card),
    })  # fmt: skip
    new_days = 0 if trained.past.changed else trained.past.new_days
    runs = tuple(run.folder for run in group.runs)
    facts = {
        "run": [str(run) for run in runs],
        "settings": {name: getattr(config, name) for name in ("run", "holdings", "capital", "min_trade", "lot")},
        "as_of": day,
        "new_days": new_days,
        noted: head,
    }
    said = confidence_lines(group.runs, "single" if len(runs) == 1 else "seeds")
    verdict = _verdict(group)
    targets = {trade.asset: trade.target for trade in trades}
    summary = {"as_of": day, "verdict": verdict, "confidence": said, "targets": targets, "ticket": asdict(orders)}
    finish_run(folder, own, record_of(own, trained, stopwatch, facts), stopwatch, summary)
    following = command_for("evaluate", trained.config, {"run": named(folders)})
    return DecideResult(
        folder, day, trades, orders, portfolio, owned is not None, table, listed, page, log.path, became, runs, verdict,
        said, new_days, following, bool(market.decision[-1]),
    )  # fmt: skip


def _expected(card: Card) -> dict[str, float]:
    """What the critic expected of a decision, as active log returns, see `Realised`."""
    advantage = {one.name: -one.advantage / card.value_distribution.scale for one in card.alternatives}
    return {
        "discounted active return": card.value_distribution.mean / card.value_distribution.scale,
        "beyond 1/N": advantage[EQUAL],
        "beyond holding": advantage[HOLD],
    }


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


def _write_tables(
    folder: Path, trades: Sequence[Trade], orders: Ticket, became: Sequence[Realised]
) -> tuple[Path, Path]:
    """Write the decision, the orders and, where there are any, the outcomes of earlier decisions; the first two."""
    table, listed = folder / "decision.csv", folder / "orders.csv"
    rows = [(t.asset, *(f"{x:z.6f}" for x in (t.held, t.target, t.trade)), t.note) for t in trades]
    atomic_csv(table, [("asset", "held", "target", "trade", "note"), *rows])
    atomic_csv(listed, [[field.name for field in fields(Order)], *(astuple(order) for order in orders.orders)])
    if became:
        header = [field.name for field in fields(Realised)]
        atomic_csv(folder / "realised.csv", [header, *(astuple(one) for one in became)])
    return table, listed


def _verdict(group: Group) -> str | None:
    """Verdict of the newest evaluation of this policy alone, or of its fold in a walk-forward."""
    fold, test = group.prepared.fold.name, group.prepared.dates["test"]
    place = opened_by(group.first.config.output_root, group.weights, fold, list(test))
    if place is None:
        return None
    figures = read_json(place / (SUMMARY if (place / SUMMARY).exists() else "metrics.json"))
    return str(figures["verdict"]["line"]) if "verdict" in figures else None
