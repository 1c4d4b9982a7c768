"""Audit of the files: CSVs with other later rows must give the same past prices and signals."""

import csv
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from finflow.data import build, series
from finflow.data.csv_source import read_sheet
from finflow.data.csv_table import CsvTable
from finflow.data.prices import Prices
from finflow.evaluation.audit.findings import Findings, Watched
from finflow.evaluation.audit.lookahead import Rows
from finflow.evaluation.audit.perturbations import JITTER
from finflow.schema.sections import PLAIN, Env

CHECK, SIGNALS = "prices file", "signals files"


def perturb_file(findings: Findings, prices: Prices, env: Env, rows: Rows, rng: np.random.Generator) -> None:
    """Write the closes of `env.path` with those after each of `rows` scaled, read them and compare the past."""
    assert env.path is not None, "the schema asks for it"
    text = wide_text(read_sheet(Path(env.path), env.format).close)
    plain = {"format": PLAIN, "volume": None}
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "prices.csv"
        for t in rows.tolist():
            other.write_text(scaled_text(text, str(prices.dates[t]), rng), encoding="utf-8")
            read = build.load_prices(env.model_copy(update={**plain, "path": str(other)}))
            cause = f"prices after {prices.dates[t]} are scaled in the file"
            close = Watched(CHECK, prices.close, "price of", prices.tickers)
            dates = Watched(CHECK, prices.dates.astype(np.int64), "date")
            findings.compare(close, read.close, t + 1, prices.dates, cause)
            findings.compare(dates, read.dates.astype(np.int64), t + 1, prices.dates, cause)


def perturb_signals(findings: Findings, prices: Prices, env: Env, rows: Rows, rng: np.random.Generator) -> None:
    """Write the files of `env.signals` anew with the rows after each of `rows` scaled, read them, compare the past.

    The comparison includes the lag: signals up to the close of a day must depend on rows up to that day alone.
    """
    assert env.signals is not None, "asked for only then"
    texts = {
        name: path.read_text(encoding="utf-8-sig") for name, path in series.signal_files(Path(env.signals)).items()
    }
    bare = replace(prices, signals={name: v for name, v in prices.signals.items() if name not in texts})
    with tempfile.TemporaryDirectory() as folder:
        for t in rows.tolist():
            for name, text in texts.items():
                later = scaled_text(text, str(prices.dates[t]), rng)
                (Path(folder) / f"{name}.csv").write_text(later, encoding="utf-8")
            read = series.add_signals(bare, env.model_copy(update={"signals": folder}))
            cause = f"the rows of signals after {prices.dates[t]} are scaled in the files"
            for name in texts:
                watched = Watched(SIGNALS, prices.signals[name], f"signal {name} of", prices.tickers)
                findings.compare(watched, read.signals[name], t + 1, prices.dates, cause)


def wide_text(table: CsvTable) -> str:
    """Closes as a CSV with a column per ticker, each number with all its digits."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(list(table.header))
    for day, row in zip(table.dates, table.values.tolist(), strict=True):
        writer.writerow([str(day), *("" if price != price else repr(price) for price in row)])
    return written.getvalue()


def scaled_text(text: str, day: str, rng: np.random.Generator) -> str:
    """The CSV with every number of the rows after `day` times a factor of its own; the rest as it was."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""))):
        if number and cells and cells[0].strip() > day:
            factors = np.exp(JITTER * rng.standard_normal(len(cells)))
            pairs = zip(cells[1:], factors[1:].tolist(), strict=True)
            scaled = [repr(float(cell) * factor) if cell.strip() else "" for cell, factor in pairs]
            cells = [cells[0], *scaled]
        writer.writerow(cells)
    return written.getvalue()
