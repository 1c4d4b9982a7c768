"""The file itself: reading a CSV whose later rows say something else gives the same prices for the earlier ones."""

import csv
import io
import tempfile
from pathlib import Path

import numpy as np

from finflow.data import sources
from finflow.data.prices import Prices
from finflow.evaluation.audit.changes import JITTER
from finflow.evaluation.audit.findings import Findings, Watched
from finflow.evaluation.audit.future import Rows
from finflow.schema.env import Env

CHECK = "prices file"


def perturb_file(findings: Findings, prices: Prices, env: Env, rows: Rows, rng: np.random.Generator) -> None:
    """Write `env.path` anew with the prices after each of `rows` scaled, read it and compare the past."""
    assert env.path is not None, "the schema asks for it"
    text = Path(env.path).read_text(encoding="utf-8-sig")
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "prices.csv"
        for t in rows.tolist():
            other.write_text(scaled_text(text, str(prices.dates[t]), rng), encoding="utf-8")
            read = sources.load_prices(env.model_copy(update={"path": str(other)}))
            cause = f"prices after {prices.dates[t]} are scaled in the file"
            close = Watched(CHECK, prices.close, "price of", prices.tickers)
            dates = Watched(CHECK, prices.dates.astype(np.int64), "date")
            findings.compare(close, read.close, t + 1, prices.dates, cause)
            findings.compare(dates, read.dates.astype(np.int64), t + 1, prices.dates, cause)


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
