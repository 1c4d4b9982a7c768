"""Sectors of names, from a user's CSV `ticker,sector`."""

from collections.abc import Sequence
from pathlib import Path

from finflow.data.csv_table import text_rows
from finflow.data.market import CASH
from finflow.errors import DataError

HEADER = ["ticker", "sector"]


def read_sectors(path: Path, tickers: Sequence[str]) -> tuple[str, ...]:
    """Sector of each of `tickers`, in their order; the file may hold others too.

    Raises
    ------
    DataError
        One line `file:row:column: what is wrong; what to do`, also where one of `tickers` has no sector.
    """
    found: dict[str, str] = {}
    for line, cells in text_rows(path):
        row = [cell.strip() for cell in cells]
        if line == 1:
            if [cell.lower() for cell in row] != HEADER:
                raise DataError(f"{path}:1:1: the header is {','.join(row)}; write {','.join(HEADER)}")
            continue
        if len(row) != len(HEADER):
            raise DataError(f"{path}:{line}:1: {len(row)} cells; write a ticker and its sector, quoted if with commas")
        ticker, sector = row
        if not ticker or not sector:
            raise DataError(f"{path}:{line}:{HEADER[bool(ticker)]}: blank; name it, or delete the row")
        if ticker in found:
            raise DataError(f"{path}:{line}:ticker: {ticker} stands twice; keep one row")
        if sector.upper() == CASH:
            raise DataError(f"{path}:{line}:sector: {sector} is what cash is called; give the sector another name")
        found[ticker] = sector
    missing = [name for name in tickers if name not in found]
    if missing:
        raise DataError(f"{path}: no sector for {', '.join(missing)}; add a row for each")
    return tuple(found[name] for name in tickers)
