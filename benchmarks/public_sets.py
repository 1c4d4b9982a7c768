"""Six public sets of the literature on online portfolio selection, as CSV files of prices.

They lie in the wheel of `universal-portfolios`, which pip fetches. Each holds cumulative returns without dates, day 0
left out: here it is 1 for every name, and business days from the set's first day stand in for dates.
"""

import csv
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

WHEEL = "universal-portfolios==0.4.17"
FIRST_DAY = {
    "nyse_o": "1962-07-03",
    "nyse_n": "1985-01-01",
    "tse": "1994-01-04",
    "sp500": "1998-01-02",
    "msci": "2006-04-01",
    "djia": "2001-01-14",
}


def write_prices(name: str, out: Path) -> Path:
    """The set `name` as OUT/NAME.csv, made once; its names are numbers, as in the literature."""
    path = out / f"{name}.csv"
    if path.exists():
        return path
    out.mkdir(parents=True, exist_ok=True)
    if not list(out.glob("universal_portfolios-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(out), WHEEL]
        subprocess.run(command, check=True)
    (wheel,) = out.glob("universal_portfolios-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        rows = list(csv.reader(io.StringIO(archive.read(f"universal/data/{name}.csv").decode())))
    levels = np.concatenate([np.ones((1, len(rows[0]))), np.array(rows[1:], dtype=np.float64)])
    names = [f"S{number:02}" for number in range(1, levels.shape[1] + 1)]
    days = pd.bdate_range(FIRST_DAY[name], periods=len(levels), name="date")
    pd.DataFrame(levels, days, pd.Index(names)).to_csv(path)
    return path
